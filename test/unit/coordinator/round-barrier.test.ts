import { describe, expect, it } from "vitest";
import { GradientSum } from "../../../src/reduce/gradient-sum.js";
import { leavesOf, RoundBarrier } from "../../../src/coordinator/round-barrier.js";

const options = { patience: 0.5, answerLimitMs: 9_000 };

describe("the barrier of a round", () => {
  it("averages as soon as everybody has trained, over who trained what", () => {
    const barrier = new RoundBarrier(["a", "b"], 0, options);
    expect(barrier.decide(100)).toEqual({ action: "wait", untilMs: Infinity });
    barrier.finish("b", 4);
    barrier.finish("a", 3.5);
    expect(barrier.decide(101)).toEqual({ action: "average", workerIds: ["b", "a"] });
    expect([...barrier.finished]).toEqual([
      ["b", 4],
      ["a", 3.5],
    ]);
  });

  it("lets half of the learners set the pace: a minority waits for nobody's account", () => {
    const barrier = new RoundBarrier(["a", "b", "c", "d", "e"], 1_000, options);
    barrier.finish("a", 1);
    barrier.finish("b", 1);
    expect(barrier.decide(11_000)).toEqual({ action: "wait", untilMs: Infinity });
    barrier.finish("c", 1);
    // The third of five came 20 s after the start: half of that more.
    expect(barrier.decide(21_000)).toEqual({ action: "wait", untilMs: 31_000 });
    expect(barrier.decide(30_999)).toEqual({ action: "wait", untilMs: 31_000 });
    expect(barrier.decide(31_000)).toEqual({ action: "stop", workerIds: ["d", "e"] });
  });

  it("leaves out who was told to stop and does not answer; an answer in time counts", () => {
    const barrier = new RoundBarrier(["a", "b", "c"], 0, options);
    barrier.finish("a", 8);
    barrier.finish("b", 8);
    barrier.decide(4_000);
    expect(barrier.decide(6_000)).toEqual({ action: "stop", workerIds: ["c"] });
    expect(barrier.decide(6_001)).toEqual({ action: "wait", untilMs: 15_000 });
    expect(barrier.decide(15_000)).toEqual({ action: "average", workerIds: ["a", "b"] });
    barrier.finish("c", 2);
    expect(barrier.decide(14_000)).toEqual({ action: "average", workerIds: ["a", "b", "c"] });
  });

  it("calls nobody slow within a second", () => {
    const barrier = new RoundBarrier(["a", "b"], 0, options);
    barrier.finish("a", 1);
    expect(barrier.decide(20)).toEqual({ action: "wait", untilMs: 1_020 });
  });

  it("waits for everybody without a patience", () => {
    const barrier = new RoundBarrier(["a", "b"], 0, { ...options, patience: null });
    barrier.finish("a", 1);
    expect(barrier.decide(1e9)).toEqual({ action: "wait", untilMs: Infinity });
  });

  it("goes on without a learner that left, also when it had trained", () => {
    const barrier = new RoundBarrier(["a", "b", "c"], 0, options);
    barrier.finish("a", 1);
    barrier.leave("a");
    barrier.leave("b");
    barrier.finish("c", 1);
    expect(barrier.decide(5)).toEqual({ action: "average", workerIds: ["c"] });
  });
});

describe("the tree over any number of contributors", () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8, 13])("adds each of %i exactly once", (count) => {
    const { shardCount, leaves } = leavesOf(count);
    expect(leaves).toHaveLength(count);
    let total: Float32Array | undefined;
    const sum = new GradientSum({
      ...{ shardCount, elementCount: 1, bucketElements: 1, wire: "f32" },
      onTotal: (_bucket, bytes) => void (total = new Float32Array(bytes.slice().buffer)),
    });
    for (const [i, leaf] of leaves.entries())
      sum.add(leaf, 0, new Uint8Array(Float32Array.of(2 ** i).buffer));
    expect(sum.isComplete).toBe(true);
    expect(total).toEqual(Float32Array.of(2 ** count - 1));
  });
});
