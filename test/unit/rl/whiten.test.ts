import { describe, expect, it } from "vitest";
import { whiten } from "../../../src/rl/whiten.js";
import { normals } from "./fixtures.js";

const rows = [Float32Array.of(1, 2, 3), Float32Array.of(4, 5, 6), Float32Array.of(7, 8, 9)];
const ones = rows.map(() => Uint8Array.of(1, 1, 1));

describe("whiten", () => {
  it("divides by the population deviation by default (TensorFlow's moments)", () => {
    // mean 5, Σ(x − 5)² = 60, √(60/9) = 2.581989: (1 − 5) / 2.581989 = −1.549193
    const whitened = whiten(rows, ones);
    expect(whitened.map((row) => Array.from(row, (x) => x.toFixed(4)))).toEqual([
      ["-1.5492", "-1.1619", "-0.7746"],
      ["-0.3873", "0.0000", "0.3873"],
      ["0.7746", "1.1619", "1.5492"],
    ]);
  });

  it("divides by the Bessel-corrected deviation on request (torch.var)", () => {
    // √(60/8) = 2.738613
    const [[first]] = whiten(rows, ones, { variance: "sample" });
    expect(first).toBeCloseTo(-1.460593, 5);
  });

  it("keeps the mean when asked to", () => {
    const [[first]] = whiten(rows, ones, { shiftMean: false });
    expect(first).toBeCloseTo(5 - 1.549193, 5);
  });

  it("takes moments of the counted tokens only and zeroes the others", () => {
    const masks = [Uint8Array.of(1, 1, 0), Uint8Array.of(1, 0, 0)];
    const [a, b] = whiten([Float32Array.of(1, 3, 1000), Float32Array.of(5, -1000, NaN)], masks);
    const unit = Math.sqrt(8 / 3);
    expect(a[0]).toBeCloseTo(-2 / unit, 5);
    expect([a[1], a[2], b[1], b[2]]).toEqual([0, 0, 0, 0]);
    expect(b[0]).toBeCloseTo(2 / unit, 5);
  });

  it("gives mean 0 and deviation 1, whatever the rows' lengths", () => {
    const ragged = [5, 1, 9, 30].map((n) => normals(n, `row ${n}`, 3).map((x) => x + 10));
    const flat = whiten(
      ragged,
      ragged.map((row) => new Uint8Array(row.length).fill(1)),
    ).flatMap((row) => [...row]);
    const mean = flat.reduce((a, b) => a + b, 0) / flat.length;
    expect(mean).toBeCloseTo(0, 6);
    expect(flat.reduce((a, b) => a + b * b, 0) / flat.length).toBeCloseTo(1, 5);
  });

  it("is defined at zero variance and for a single token: zero", () => {
    expect([...whiten([Float32Array.of(2, 2)], [Uint8Array.of(1, 1)])[0]]).toEqual([0, 0]);
    expect([...whiten([Float32Array.of(2)], [Uint8Array.of(1)])[0]]).toEqual([0]);
  });

  it("refuses a batch without counted tokens, one token under sample variance, and differing shapes", () => {
    expect(() => whiten([Float32Array.of(1, 2)], [Uint8Array.of(0, 0)])).toThrow(/0 counted tokens/);
    expect(() => whiten([Float32Array.of(1)], [Uint8Array.of(1)], { variance: "sample" })).toThrow(/needs 2/);
    expect(() => whiten([Float32Array.of(1)], [Uint8Array.of(1, 1)])).toThrow(/differ/);
  });
});
