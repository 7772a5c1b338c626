import { describe, expect, it } from "vitest";
import { StepVotes } from "../../../src/coordinator/step-votes.js";

const vote = (generation: number, shard: number, loss: number, computeMs = 1, allReduceMs = 1) => ({
  generation,
  stats: [{ shard, sums: { loss } }],
  computeMs,
  allReduceMs,
});

describe("the reports of a step's voters", () => {
  it("are summed in shard order, whoever voted first", () => {
    // 1 is lost beside 1e16: only left-to-right over the shards gives this sum.
    const losses = [1e16, 1, -1e16, 2];
    const totals = [
      [0, 1, 2, 3],
      [3, 2, 1, 0],
      [1, 3, 0, 2],
    ].map((order) => {
      const votes = new StepVotes();
      votes.open(7, 1);
      for (const shard of order) votes.add(vote(7, shard, losses[shard]));
      return votes.take().sums.loss;
    });
    expect(totals).toEqual([2, 2, 2]);
  });

  it("keep the times of the slowest member", () => {
    const votes = new StepVotes();
    votes.open(1, 1);
    votes.add(vote(1, 0, 0, 30, 4));
    votes.add(vote(1, 1, 0, 20, 9));
    expect(votes.take()).toMatchObject({ computeMs: 30, allReduceMs: 9 });
  });

  it("of another generation do not count, nor do those of a generation that was given up", () => {
    const votes = new StepVotes();
    votes.open(1, 1);
    votes.add(vote(1, 0, 5, 99));
    votes.open(2, 1);
    votes.add(vote(1, 1, 5, 99));
    votes.add(vote(2, 1, 3, 2));
    expect(votes.take()).toEqual({ sums: { loss: 3 }, firstSums: {}, computeMs: 2, allReduceMs: 1 });
  });

  it("are handed out once: a step answered from the journal has none", () => {
    const votes = new StepVotes();
    votes.open(1, 1);
    votes.add(vote(1, 0, 5));
    votes.take();
    votes.add(vote(1, 0, 5));
    expect(votes.take()).toEqual({ sums: {}, firstSums: {}, computeMs: 0, allReduceMs: 0 });
  });
});
