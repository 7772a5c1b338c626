import { expect } from "vitest";
import type { HostArrays } from "../../../src/engine/engine.js";

/** worst |a − b| / max |b|: a float32 sum's error scales with its largest term, not with the element. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(actual.length).toBe(expected.length);
  let worst = 0;
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    if (!Number.isFinite(actual[i]) || !Number.isFinite(expected[i])) return Infinity;
    worst = Math.max(worst, Math.abs(actual[i] - expected[i]));
    largest = Math.max(largest, Math.abs(expected[i]));
  }
  return worst === 0 ? 0 : worst / Math.max(largest, 1e-3);
}

/** Every named array within `tolerance` of its partner; a failure names the worst one. */
export function expectClose(actual: HostArrays, expected: HostArrays, tolerance = 1e-5): void {
  expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
  const errors = Object.keys(expected).map((name) => ({
    name,
    error: relativeError(actual[name], expected[name]),
  }));
  const worst = errors.reduce((a, b) => (b.error > a.error ? b : a));
  expect(worst.error, `worst relative error, in "${worst.name}"`).toBeLessThanOrEqual(tolerance);
}

/** Bit for bit. */
export function expectIdentical(actual: HostArrays, expected: HostArrays): void {
  for (const name of Object.keys(expected)) {
    const [a, b] = [bytes(actual[name]), bytes(expected[name])];
    expect(a.equals(b), `"${name}" differs in some bit`).toBe(true);
  }
}

const bytes = (values: Float32Array | Int32Array) =>
  Buffer.from(values.buffer, values.byteOffset, values.byteLength);
