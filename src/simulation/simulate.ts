/** One seed, one run, one verdict; and the smallest fault schedule that still fails. */
import { checkRun, type Violation } from "./checker.js";
import type { Planted } from "./planted.js";
import { makeScenario, type Scenario } from "./scenario.js";
import { World } from "./world.js";

export interface RunResult {
  readonly scenario: Scenario;
  readonly violations: readonly Violation[];
  /** Simulated events executed. */
  readonly events: number;
  readonly virtualMs: number;
}

export function simulateSeed(seed: number, planted: Planted = "none"): RunResult {
  return simulateScenario(makeScenario(seed), planted);
}

export function simulateScenario(scenario: Scenario, planted: Planted = "none"): RunResult {
  const world = new World(scenario, planted);
  let violations: Violation[];
  try {
    violations = checkRun(scenario, world.run());
  } catch (error) {
    violations = [{ invariant: "crash", detail: (error as Error).stack ?? String(error) }];
  }
  return { scenario, violations, events: world.scheduler.executed, virtualMs: world.scheduler.nowMs };
}

/** Takes away faults, bad ids and network trouble one by one as long as some invariant is still violated. */
export function shrink(scenario: Scenario, planted: Planted = "none"): RunResult {
  let best = simulateScenario(scenario, planted);
  for (let isSmaller = true; isSmaller;) {
    isSmaller = false;
    for (const candidate of smaller(best.scenario)) {
      const result = simulateScenario(candidate, planted);
      if (result.violations.length === 0) continue;
      best = result;
      isSmaller = true;
      break;
    }
  }
  return best;
}

function* smaller(scenario: Scenario): Iterable<Scenario> {
  const { faults, network } = scenario;
  for (let i = 0; i < faults.length; i++) yield { ...scenario, faults: faults.filter((_, j) => j !== i) };
  if (network.drop > 0) yield { ...scenario, network: { ...network, drop: 0 } };
  if (network.duplicate > 0) yield { ...scenario, network: { ...network, duplicate: 0 } };
  if (network.jitterMs > 0) yield { ...scenario, network: { ...network, jitterMs: 0 } };
  if (scenario.poisonIds.length > 0) yield { ...scenario, poisonIds: [] };
  if (scenario.nonFiniteIds.length > 0) yield { ...scenario, nonFiniteIds: [] };
  if (scenario.nonFiniteSteps.length > 0) yield { ...scenario, nonFiniteSteps: [] };
  if (scenario.compactEvery > 0) yield { ...scenario, compactEvery: 0 };
  if (scenario.checkpointEvery > 0) yield { ...scenario, checkpointEvery: 0 };
  if (scenario.rounds !== null) {
    const { every, lateMs } = scenario.rounds;
    yield { ...scenario, rounds: null };
    if (lateMs > 0) yield { ...scenario, rounds: { ...scenario.rounds, lateMs: 0 } };
    if (every > 1) yield { ...scenario, rounds: { ...scenario.rounds, every: every - 1 } };
  }
  if (scenario.evaluates) yield { ...scenario, evaluates: false };
  if (scenario.endsEarly) yield { ...scenario, endsEarly: false };
  if (scenario.iterations > 1) yield { ...scenario, iterations: scenario.iterations - 1 };
  if (scenario.ppoEpochs > 1) yield { ...scenario, ppoEpochs: 1 };
  if (scenario.rollouts > 1) yield { ...scenario, rollouts: scenario.rollouts - 1 };
  const needsWitness = faults.some((fault) => fault.kind === "corruptLearner");
  if (scenario.learners > scenario.minLearners && scenario.learners > (needsWitness ? 2 : 1))
    yield { ...scenario, learners: scenario.learners - 1 };
}
