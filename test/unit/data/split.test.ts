import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { splitPhases, type SplitOptions } from "../../../src/data/split.js";

const arbitrarySplit = fc.record<SplitOptions>({
  rows: fc.integer({ min: 0, max: 400 }),
  shares: fc.tuple(
    fc.integer({ min: 0, max: 9 }),
    fc.integer({ min: 0, max: 9 }),
    fc.integer({ min: 1, max: 9 }),
  ),
  evalFraction: fc.double({ min: 0, max: 0.5, noNaN: true }),
  seed: fc.integer({ min: 0, max: 2 ** 40 }),
});
const partsOf = (options: SplitOptions): number[][] =>
  Object.values(splitPhases(options)).flatMap((phase) => [[...phase.train], [...phase.eval]]);

describe("splitPhases", () => {
  it("the six parts hold every row exactly once", () => {
    fc.assert(
      fc.property(arbitrarySplit, (options) => {
        const all = partsOf(options)
          .flat()
          .sort((a, b) => a - b);
        expect(all).toEqual(Array.from({ length: options.rows }, (_, i) => i));
      }),
    );
  });

  it("each phase gets its share to within one row", () => {
    fc.assert(
      fc.property(arbitrarySplit, (options) => {
        const total = options.shares.reduce((a, b) => a + b);
        Object.values(splitPhases(options)).forEach(({ train, eval: held }, k) => {
          const size = train.length + held.length;
          expect(Math.abs(size - (options.rows * options.shares[k]) / total)).toBeLessThanOrEqual(1);
          if (size >= 2) expect(Math.abs(held.length - size * options.evalFraction)).toBeLessThanOrEqual(1);
          if (size > 0) expect(train.length).toBeGreaterThan(0);
        });
      }),
    );
  });

  it("is the same for the same seed and another for another seed", () => {
    const options: SplitOptions = { rows: 1000, shares: [2, 4, 4], evalFraction: 0.1, seed: 3 };
    expect(partsOf(options)).toEqual(partsOf({ ...options }));
    expect(partsOf(options)).not.toEqual(partsOf({ ...options, seed: 4 }));
  });

  it("2,4,4 of 1,000 rows with a tenth held out", () => {
    const { sft, reward, ppo } = splitPhases({ rows: 1000, shares: [2, 4, 4], evalFraction: 0.1, seed: 1 });
    const sizes = [sft, reward, ppo].map((phase) => [phase.train.length, phase.eval.length]);
    expect(sizes).toEqual([
      [180, 20],
      [360, 40],
      [360, 40],
    ]);
  });

  it("depends on the ratio of shares, and evalFraction moves no row to another phase", () => {
    const options: SplitOptions = { rows: 500, shares: [2, 4, 4], evalFraction: 0.1, seed: 9 };
    expect(partsOf(options)).toEqual(partsOf({ ...options, shares: [1, 2, 2] }));
    const members = (split: SplitOptions): number[][] =>
      Object.values(splitPhases(split)).map((phase) => [...phase.train, ...phase.eval].sort((a, b) => a - b));
    expect(members(options)).toEqual(members({ ...options, evalFraction: 0.4 }));
  });

  it("pins one small split, so that a run can be repeated by a later version", () => {
    expect(partsOf({ rows: 10, shares: [2, 4, 4], evalFraction: 0.25, seed: 1 })).toMatchInlineSnapshot(`
      [
        [
          7,
        ],
        [
          1,
        ],
        [
          6,
          4,
          5,
        ],
        [
          0,
        ],
        [
          9,
          8,
          2,
        ],
        [
          3,
        ],
      ]
    `);
  });

  it("refuses shares that are all zero", () => {
    expect(() => splitPhases({ rows: 10, shares: [0, 0, 0], evalFraction: 0, seed: 1 })).toThrow(
      "data.split is [0, 0, 0]; expected at least one share above 0",
    );
  });
});
