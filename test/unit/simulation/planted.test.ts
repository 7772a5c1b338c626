import { describe, expect, it } from "vitest";
import { PLANTED_BUGS, shrink, simulateSeed, type Planted } from "../../../src/simulation/index.js";

/** What the checker must say about each bug; a run that merely crashes would not show that the checker can see. */
const EXPECTED: Record<Exclude<Planted, "none">, string> = {
  "no-dedupe": "I2",
  "ignore-generation": "I5",
  "ack-before-journal": "I2",
  "skip-finite-check": "I5",
  "wall-clock-lease": "C1",
  "no-fence": "I6",
  "no-staleness-bound": "I8",
  "forget-skipped": "I10",
  "forget-left-out": "I3",
  "count-departed": "I3",
  "blame-nobody": "I11",
  "no-fsync": "I2",
  "deaf-to-failure": "I2",
  "two-writers": "I6",
  "early-registration": "I6",
  "fence-experiences-only": "I6",
  "count-stale-parts": "I12",
  "trust-checkpoint": "I10",
  "slow-to-notice": "I11",
  "lose-retried": "I7",
};
const SEEDS = 2_000;

const caught = new Map<Planted, number | null>();

function firstCatch(planted: Exclude<Planted, "none">): number | null {
  if (!caught.has(planted)) caught.set(planted, findCatch(planted, EXPECTED[planted]));
  return caught.get(planted)!;
}

function findCatch(planted: Planted, invariant: string): number | null {
  for (let seed = 1; seed <= SEEDS; seed++) {
    if (simulateSeed(seed, planted).violations.some((violation) => violation.invariant === invariant))
      return seed;
  }
  return null;
}

describe("planted bugs", () => {
  for (const planted of PLANTED_BUGS) {
    it(`${planted} is caught as a violation of ${EXPECTED[planted]}, on a seed that passes without it`, () => {
      const seed = firstCatch(planted);
      expect(seed, `not caught in ${SEEDS} seeds`).not.toBeNull();
      expect(simulateSeed(seed!).violations).toEqual([]);
    });
  }

  it.each([
    "ack-before-journal",
    "forget-left-out",
    "no-fsync",
    "deaf-to-failure",
    "two-writers",
    "early-registration",
    "fence-experiences-only",
    "count-stale-parts",
    "trust-checkpoint",
    "slow-to-notice",
    "lose-retried",
  ] as const)("a run with %s shrinks and still fails", (planted) => {
    const failing = simulateSeed(firstCatch(planted)!, planted);
    const shrunk = shrink(failing.scenario, planted);
    expect(shrunk.violations.length).toBeGreaterThan(0);
    expect(shrunk.scenario.faults.length).toBeLessThanOrEqual(failing.scenario.faults.length);
    expect(shrunk.scenario.faults.length).toBeLessThanOrEqual(3);
    expect(shrunk.scenario.iterations).toBeLessThanOrEqual(failing.scenario.iterations);
  });
});
