import { describe, expect, it } from "vitest";
import { checkStaleness } from "../../../src/coordinator/collect-ahead.js";
import type { DurableState } from "../../../src/coordinator/core/index.js";
import type { TroupeError } from "../../../src/shared/errors.js";

type Entry = readonly [status: string, iteration: number, policyVersion: number];

const stateOf = (policyVersion: number, ...entries: readonly Entry[]) =>
  ({
    policyVersion,
    experiences: new Map(
      entries.map(([status, iteration, sampledBy], i) => [
        `${iteration}/${i}/0`,
        { status, iteration, policyVersion: sampledBy, bytes: 1, listings: 0, uses: 0 },
      ]),
    ),
  }) as unknown as DurableState;

/** The lowest bound that is accepted; undefined when 9 is not. */
const lowest = (state: DurableState): number | undefined =>
  Array.from({ length: 10 }, (_, bound) => bound).find((bound) => {
    try {
      checkStaleness(state, bound);
      return true;
    } catch (error) {
      expect(error).toMatchObject({ code: "CONFIG" });
      expect((error as TroupeError).message).toContain(`ppo.staleness ${bound}: `);
      return false;
    }
  });

describe("the staleness bound of a run that is continued", () => {
  it("may be anything while nothing is collected", () => {
    expect(lowest(stateOf(-1))).toBe(0);
    expect(lowest(stateOf(4))).toBe(0);
  });

  it("is at least what answers that wait will be when their iteration trains", () => {
    expect(lowest(stateOf(3, ["buffered", 3, 3], ["buffered", 3, 2]))).toBe(1);
    expect(lowest(stateOf(3, ["buffered", 4, 3]))).toBe(1); // fresh now, one version old in its turn
    expect(lowest(stateOf(3, ["buffered", 5, 2]))).toBe(3);
  });

  it("is at least what answers that are still to be sampled will be", () => {
    expect(lowest(stateOf(3, ["open", 3, -1]))).toBe(0);
    expect(lowest(stateOf(3, ["open", 5, -1]))).toBe(2);
    expect(lowest(stateOf(-1, ["open", 0, -1]))).toBe(0); // nothing is published yet
  });

  it("does not count what has had its end", () => {
    expect(lowest(stateOf(3, ["trained", 3, 0], ["dropped", 5, 1], ["abandoned", 6, -1]))).toBe(0);
  });
});
