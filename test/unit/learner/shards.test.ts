import { describe, expect, it } from "vitest";
import {
  bucketLength,
  denominatorOf,
  longestSequence,
  padPairs,
  padPpo,
  padSft,
  type PpoRow,
} from "../../../src/learner/shards.js";

const PAD = 99;
const shape = { rows: 2, length: 8 };
const grid = (values: ArrayLike<number>, width: number) =>
  Array.from({ length: values.length / width }, (_, b) =>
    Array.from(values).slice(b * width, (b + 1) * width),
  );

const ppoRow: PpoRow = {
  promptIds: Int32Array.of(1, 2, 3),
  responseIds: Int32Array.of(4, 5),
  logprobs: Float32Array.of(-1, -2),
  values: Float32Array.of(10, 20),
  advantages: Float32Array.of(0.5, -0.5),
  returns: Float32Array.of(7, 8),
  actionMask: Uint8Array.of(1, 0),
};

describe("padPpo", () => {
  it("puts response token i of a row with P prompt tokens at index P + i − 1", () => {
    const batch = padPpo([ppoRow], shape, PAD);
    expect(grid(batch.ids, 8)).toEqual([
      [1, 2, 3, 4, 5, PAD, PAD, PAD],
      [PAD, PAD, PAD, PAD, PAD, PAD, PAD, PAD],
    ]);
    const row = (a: number, b: number) => [
      [0, 0, a, b, 0, 0, 0],
      [0, 0, 0, 0, 0, 0, 0],
    ];
    expect(grid(batch.oldLogprobs, 7)).toEqual(row(-1, -2));
    expect(grid(batch.oldValues, 7)).toEqual(row(10, 20));
    expect(grid(batch.advantages, 7)).toEqual(row(0.5, -0.5));
    expect(grid(batch.returns, 7)).toEqual(row(7, 8));
    expect(grid(batch.mask, 7)).toEqual(row(1, 0));
  });

  it("refuses misaligned rows and rows without a prompt", () => {
    expect(() => padPpo([{ ...ppoRow, values: new Float32Array(3) }], shape, PAD)).toThrow(
      /2 response tokens, 3 entries/,
    );
    expect(() => padPpo([{ ...ppoRow, promptIds: new Int32Array(0) }], shape, PAD)).toThrow(
      /expected at least 1/,
    );
  });
});

describe("padSft", () => {
  it("marks the prediction of token t + 1 at index t; the first token is never a target", () => {
    const batch = padSft(
      [{ ids: Int32Array.of(1, 2, 3, 4), lossMask: Uint8Array.of(1, 0, 1, 1) }],
      shape,
      PAD,
    );
    expect(grid(batch.ids, 8)[0]).toEqual([1, 2, 3, 4, PAD, PAD, PAD, PAD]);
    expect(grid(batch.mask, 7)).toEqual([
      [0, 1, 1, 0, 0, 0, 0],
      [0, 0, 0, 0, 0, 0, 0],
    ]);
  });
});

describe("padPairs", () => {
  const pair = {
    chosen: Int32Array.of(1, 2, 30, 31, 0),
    rejected: Int32Array.of(1, 2, 40, 0),
    promptTokens: 2,
  };

  it("stacks chosen over rejected and marks each row's last token", () => {
    const batch = padPairs([pair], shape, PAD, null);
    expect(grid(batch.ids, 8)).toEqual([
      [1, 2, 30, 31, 0, PAD, PAD, PAD],
      [PAD, PAD, PAD, PAD, PAD, PAD, PAD, PAD],
      [1, 2, 40, 0, PAD, PAD, PAD, PAD],
      [PAD, PAD, PAD, PAD, PAD, PAD, PAD, PAD],
    ]);
    expect(grid(batch.ends, 8).map((row) => row.indexOf(1))).toEqual([4, -1, 3, -1]);
    expect([...batch.pairMask]).toEqual([1, 0]);
    expect(grid(batch.spanWeights, 8)[0].map((w) => Number(w.toFixed(4)))).toEqual([
      0, 0, 0.3333, 0.3333, 0.3333, 0, 0, 0,
    ]);
  });

  it("under DeepSpeed-Chat's rule an EOS that is the pad id is neither scored nor compared", () => {
    const batch = padPairs([pair], shape, 0, 0);
    expect(grid(batch.ends, 8).map((row) => row.indexOf(1))).toEqual([3, -1, 2, -1]);
    expect(grid(batch.spanWeights, 8)[0]).toEqual([0, 0, 0.5, 0.5, 0, 0, 0, 0]);
  });
});

describe("bucketLength", () => {
  it("rounds up to a multiple of 16, at most the model's context", () => {
    expect([1, 16, 17, 40].map((n) => bucketLength(n, 100))).toEqual([16, 16, 32, 48]);
    expect(bucketLength(97, 100)).toBe(100);
    expect(() => bucketLength(101, 100)).toThrow(/101 tokens; the model holds 100/);
  });
});

describe("denominatorOf and longestSequence", () => {
  it("count what the losses count", () => {
    const ppo = { kind: "ppo", rows: [ppoRow, ppoRow] } as const;
    const sft = {
      kind: "sft",
      rows: [{ ids: Int32Array.of(1, 2, 3), lossMask: Uint8Array.of(1, 1, 0) }],
    } as const;
    const reward = {
      kind: "reward",
      rows: [{ chosen: Int32Array.of(1, 2, 3), rejected: Int32Array.of(1), promptTokens: 1 }],
    } as const;
    expect([ppo, sft, reward].map(denominatorOf)).toEqual([2, 1, 1]);
    expect([ppo, sft, reward].map(longestSequence)).toEqual([5, 3, 3]);
    expect(longestSequence({ kind: "ppo", rows: [] })).toBe(0);
  });
});
