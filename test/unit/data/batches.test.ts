import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { epochOrder, groupsOf, minibatches, PromptSource } from "../../../src/data/batches.js";

const rows = Array.from({ length: 7 }, (_, i) => `row ${i}`);

describe("epoch order and minibatches", () => {
  it("every epoch is a permutation, its own, and repeatable", () => {
    const first = epochOrder(50, "sft", 1, 0);
    expect([...first].sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(first).toEqual(epochOrder(50, "sft", 1, 0));
    for (const other of [
      epochOrder(50, "sft", 1, 1),
      epochOrder(50, "sft", 2, 0),
      epochOrder(50, "reward", 1, 0),
    ]) {
      expect(first).not.toEqual(other);
    }
  });

  it("minibatches have exactly the asked size and drop the rest of the epoch", () => {
    const order = epochOrder(10, "sft", 1, 0);
    const batches = minibatches(order, 4);
    expect(batches.map((batch) => batch.length)).toEqual([4, 4]);
    expect(batches.flatMap((batch) => [...batch])).toEqual([...order.subarray(0, 8)]);
  });

  it("fewer rows than one minibatch is an error that says what to change", () => {
    expect(() => minibatches(epochOrder(3, "sft", 1, 0), 4)).toThrow(
      "a minibatch of 4 rows needs at least 4 rows, got 3; lower the batch size",
    );
  });

  it("evaluation groups keep the short last one", () => {
    expect(groupsOf([1, 2, 3, 4, 5], 2)).toEqual([[1, 2], [3, 4], [5]]);
    expect(groupsOf([], 2)).toEqual([]);
  });
});

describe("PromptSource", () => {
  it("gives each row once per epoch, across batch borders", () => {
    const source = new PromptSource(rows, 5);
    const drawn = [source.next(4), source.next(4), source.next(6)].flat();
    expect([...drawn.slice(0, 7)].sort()).toEqual(rows);
    expect([...drawn.slice(7)].sort()).toEqual(rows);
    expect(drawn.slice(0, 7)).not.toEqual(drawn.slice(7));
  });

  it("goes on from a saved position exactly, wherever it stopped", () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 20 }), fc.nat(1000), (before, after, seed) => {
        const source = new PromptSource(rows, seed);
        for (const size of before) source.next(size);
        const saved = JSON.parse(JSON.stringify(source.position)) as typeof source.position;
        const resumed = new PromptSource(rows, seed, saved);
        expect(resumed.next(after)).toEqual(source.next(after));
        expect(resumed.position).toEqual(source.position);
      }),
    );
  });

  it("refuses a position of other data and an empty set", () => {
    expect(() => new PromptSource(rows, 1, { epoch: 0, offset: 8 })).toThrow(
      "prompt position epoch 0, offset 8 does not fit 7 prompts; resume with the data the checkpoint was made with",
    );
    expect(() => new PromptSource(rows, 1, { epoch: -1, offset: 0 })).toThrow(/does not fit/);
    expect(() => new PromptSource([], 1)).toThrow("no prompts to draw from");
  });
});
