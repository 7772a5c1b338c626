import { describe, expect, it } from "vitest";
import { pairSpan, scorePosition } from "../../../src/rl/pair-span.js";

const PAD = 1;
const ids = (...row: number[]) => Int32Array.from(row);
const plain = { padId: PAD, numPaddingAtBeginning: 0 };

describe("pairSpan", () => {
  it("runs from the first difference to the longer answer's end", () => {
    const span = pairSpan(ids(7, 8, 20, 21, PAD, PAD), ids(7, 8, 30, 31, 32, PAD), 6, plain);
    expect(span).toEqual({ chosenEnd: 4, rejectedEnd: 5, start: 2, end: 5 });
  });

  it("treats unpadded rows like padded ones", () => {
    const span = pairSpan(ids(7, 8, 20, 21), ids(7, 8, 30, 31, 32), 6, plain);
    expect(span).toEqual({ chosenEnd: 4, rejectedEnd: 5, start: 2, end: 5 });
  });

  it("starts where the shorter row ends if it is the other's beginning", () => {
    expect(pairSpan(ids(7, 8), ids(7, 8, 9), 3, plain)).toEqual({
      chosenEnd: 2,
      rejectedEnd: 3,
      start: 2,
      end: 3,
    });
  });

  it("ends at the width when a row has no pad", () => {
    expect(pairSpan(ids(7, 8, 9), ids(7, 8, 6), 3, plain).end).toBe(3);
  });

  it("does not end a row at the pads it begins with", () => {
    const opt = { padId: PAD, numPaddingAtBeginning: 1 };
    const span = pairSpan(ids(PAD, 8, 20, PAD, PAD), ids(PAD, 8, 30, 31, PAD), 5, opt);
    expect(span).toEqual({ chosenEnd: 3, rejectedEnd: 4, start: 2, end: 4 });
    expect(pairSpan(ids(PAD, 8, 20, PAD, PAD), ids(PAD, 8, 30, 31, PAD), 5, plain).chosenEnd).toBe(0);
  });

  it("compares identical rows at the last position only", () => {
    const row = ids(7, 8, 9, PAD);
    expect(pairSpan(row, row, 4, plain)).toEqual({ chosenEnd: 3, rejectedEnd: 3, start: 3, end: 4 });
  });

  it("refuses rows that differ from the start", () => {
    expect(() => pairSpan(ids(7, 8), ids(6, 8), 2, plain)).toThrow(/share a prompt/);
  });
});

describe("scorePosition", () => {
  it("is the last token", () => {
    expect(scorePosition(ids(5, 6, 7, PAD), 2, null)).toBe(3);
  });

  it("with a pad rule is the token before the first pad of the answer", () => {
    expect(scorePosition(ids(5, 6, 7, PAD, PAD), 2, PAD)).toBe(2);
    expect(scorePosition(ids(5, 6, 7), 2, PAD)).toBe(2);
    expect(scorePosition(ids(PAD, 6, 7, PAD), 2, PAD)).toBe(2); // pads inside the prompt do not count
  });
});
