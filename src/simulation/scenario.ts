/** What one simulated run looks like and what goes wrong in it; all of it follows from the seed. */
import { Random } from "./random.js";

export type FaultKind =
  | "killRollout"
  | "killLearner"
  | "killCoordinator"
  /** It stops for so long that another may take over, and goes on beside it. */
  | "pauseCoordinator"
  /** An append to the journal fails. */
  | "failJournal"
  | "killAll"
  | "pauseRollout"
  | "pauseLearner"
  | "partitionRollout"
  | "partitionLearner"
  | "slowRollout"
  | "slowLearner"
  /** A computation takes longer than an attempt. */
  | "crawlLearner"
  /** No computation returns any more. */
  | "hangLearner"
  /** Two learners do not reach each other, and the coordinator reaches both. */
  | "cutLearners"
  | "drainRollout"
  | "drainLearner"
  | "rollLearners"
  | "clockJump"
  | "corruptLearner";

export interface Fault {
  readonly kind: FaultKind;
  readonly atMs: number;
  /** Which worker of the role, modulo how many there are. */
  readonly target: number;
  /** Until it is over: restart, resume, heal. rollLearners: between one learner's drain and the next one's. */
  readonly durationMs: number;
  /**
   * killCoordinator: where it dies. "now": at that time; otherwise at the next journal sync, before it, right after
   * it (nothing told to anybody yet), or after the first of its messages. failJournal: whether its records are lost
   * ("beforeSync") or there nevertheless ("afterSync"). Partitions: "in" and "out" cut one direction.
   */
  readonly point: "now" | "beforeSync" | "afterSync" | "midEffects" | "in" | "out";
}

export interface NetworkProfile {
  readonly drop: number;
  readonly duplicate: number;
  readonly delayMs: number;
  readonly jitterMs: number;
}

export interface Scenario {
  readonly seed: number;
  readonly rollouts: number;
  readonly learners: number;
  readonly minLearners: number;
  readonly iterations: number;
  readonly prompts: number;
  readonly promptsPerTask: number;
  readonly ppoEpochs: number;
  readonly minibatchSize: number;
  readonly shardCount: number;
  readonly maxStalenessVersions: number;
  readonly capacityBytes: number;
  /** Iterations between checkpoints; 0 = none. */
  readonly checkpointEvery: number;
  /** How many of them can be gone on from, the starting model included. */
  readonly keptCheckpoints: number;
  /** Whether the newest checkpoint is damaged whenever the coordinator dies; only with an older state to go on from. */
  readonly damagesCheckpoints: boolean;
  /** A task this many times slower than the mean goes to a second worker; 0 = never. */
  readonly hedgeFactor: number;
  /** Records between snapshots of the journal; 0 = none. */
  readonly compactEvery: number;
  /** Ids whose generation kills the worker, and ids whose result is not finite. */
  readonly poisonIds: readonly string[];
  readonly nonFiniteIds: readonly string[];
  /** Steps whose gradient is not finite. */
  readonly nonFiniteSteps: readonly number[];
  /** What a learner takes to load the state it was given, ms. */
  readonly copyMs: number;
  /** Learners average parameters; null: they sum gradients. */
  readonly rounds: RoundScenario | null;
  /** Learners sum gradients among themselves. */
  readonly isSharded: boolean;
  /** The policy is evaluated at the end. */
  readonly evaluates: boolean;
  /** One iteration less is trained than was planned, and perhaps collected for. */
  readonly endsEarly: boolean;
  readonly network: NetworkProfile;
  readonly faults: readonly Fault[];
}

export interface RoundScenario {
  /** Minibatches of a round at most. */
  readonly every: number;
  /** Slow learners get this many times what half of them took; null: as long as they need. */
  readonly patience: number | null;
  /** Until the second learner joins, ms. */
  readonly lateMs: number;
}

/** No fault starts after this; the network is clean from here on, so the run must then finish. */
export const FAULTS_END_MS = 6_000;
/** A run that is not over by then hangs. */
export const RUN_LIMIT_MS = 240_000;

const QUIET: NetworkProfile = { drop: 0, duplicate: 0, delayMs: 5, jitterMs: 0 };

export function makeScenario(seed: number): Scenario {
  const random = new Random(seed);
  const rollouts = random.between(1, 3);
  const learners = random.between(1, 3);
  const prompts = random.pick([4, 6, 8]);
  const iterations = random.between(2, 4);
  const maxStalenessVersions = random.pick([0, 0, 1, 2]);
  const anyId = (): string => `${random.between(0, iterations - 1)}/${random.between(0, prompts - 1)}/0`;
  const isHarsh = random.chance(0.4);
  // A damaged state is noticed by comparison: this fault needs company, and nothing that takes it away.
  const isComparison = learners >= 2 && random.chance(0.05);
  // Nothing but drains of learners, so that whatever is computed again is their fault.
  const isRolling = !isComparison && learners >= 2 && random.chance(0.1);
  const isQuiet = isComparison || isRolling;
  const scenario: Scenario = {
    seed,
    rollouts,
    learners,
    minLearners: random.chance(0.2) ? learners : 1,
    iterations,
    prompts,
    promptsPerTask: random.pick([1, 2, 3]),
    ppoEpochs: random.pick([1, 1, 2]),
    minibatchSize: random.pick([2, 4]),
    shardCount: random.pick([1, 2, 4]),
    maxStalenessVersions,
    capacityBytes: random.chance(0.1) ? 8 * prompts : 1_000_000,
    checkpointEvery: random.pick([0, 1, 2]),
    compactEvery: random.pick([0, 7, 20]),
    poisonIds: random.chance(0.1) ? [anyId()] : [],
    nonFiniteIds: random.chance(0.1) ? [anyId()] : [],
    nonFiniteSteps: !isComparison && random.chance(0.15) ? [random.between(1, 6)] : [],
    network: isQuiet
      ? QUIET
      : {
          drop: isHarsh ? random.pick([0, 0.02, 0.1]) : 0,
          duplicate: isHarsh ? random.pick([0, 0.05, 0.2]) : 0,
          delayMs: random.pick([1, 5, 20]),
          jitterMs: random.pick([0, 10, isHarsh ? 150 : 10]),
        },
    faults: isComparison ? [makeCorruption(random)] : isRolling ? makeRolling(random) : makeFaults(random),
    ...makeKeeping(random),
    hedgeFactor: random.pick([0, 1, 2]),
    // A step that is taken while the others copy has no witness.
    copyMs: isComparison ? 0 : random.pick([0, 0, 0, 200, 900]),
    rounds: null,
    isSharded: false,
    evaluates: false,
    endsEarly: false,
  };
  const whole = isQuiet ? scenario : withOtherEnds(withTroubledCoordinator(withLateLearners(scenario)));
  // Averaging is refused with staleness; a lone learner averages with nobody.
  return random.chance(0.3) ? withRounds(whole, random) : whole;
}

/** Learners that the others wait for in vain. From numbers of its own: what else is drawn stays as it is. */
function withLateLearners(scenario: Scenario): Scenario {
  const random = new Random(scenario.seed ^ 0x5eed);
  const isSharded = scenario.learners > 1 && random.chance(0.5);
  const kinds: readonly FaultKind[] = ["crawlLearner", "hangLearner", ...(isSharded ? CUTS : [])];
  const faults = Array.from({ length: random.chance(0.4) ? 1 : 0 }, (): Fault => {
    const durationMs = random.pick([700, 1_500, 3_000]);
    const atMs = random.between(1, 2_000);
    return { kind: random.pick(kinds), atMs, target: random.between(0, 5), durationMs, point: "now" };
  });
  return { ...scenario, isSharded, faults: [...scenario.faults, ...faults].sort((a, b) => a.atMs - b.atMs) };
}

/** The one that directs is replaced while it only slept, or cannot write. From numbers of its own. */
function withTroubledCoordinator(scenario: Scenario): Scenario {
  const random = new Random(scenario.seed ^ 0xc0de);
  const faults = Array.from({ length: random.chance(0.3) ? random.between(1, 2) : 0 }, (): Fault => {
    return {
      kind: random.pick(["pauseCoordinator", "pauseCoordinator", "failJournal"]),
      atMs: random.between(1, 2_000),
      target: 0,
      durationMs: random.pick([100, 700, 1_500, 3_000]),
      point: random.pick(["beforeSync", "afterSync"]),
    };
  });
  return { ...scenario, faults: [...scenario.faults, ...faults].sort((a, b) => a.atMs - b.atMs) };
}

function withOtherEnds(scenario: Scenario): Scenario {
  const random = new Random(scenario.seed ^ 0xe7d5);
  return { ...scenario, evaluates: random.chance(0.2), endsEarly: random.chance(0.1) };
}

/** Iterations that are trained. */
export const lastIteration = ({ iterations, endsEarly }: Scenario): number =>
  endsEarly ? Math.max(1, iterations - 1) : iterations;

const CUTS: readonly FaultKind[] = ["cutLearners", "cutLearners"];

/** With more faults of learners, while most rounds are trained. */
function withRounds(scenario: Scenario, random: Random): Scenario {
  const rounds = {
    every: random.pick([1, 2, 4, 4]),
    patience: random.pick([0.5, 1, null]),
    // Whoever rolls away before there is another has nobody to stay for.
    lateMs: scenario.faults.some(({ kind }) => kind === "rollLearners") ? 0 : random.pick([0, 0, 200, 700]),
  };
  const learners = Math.max(scenario.learners, random.pick([1, 2, 3, 3]));
  // What these compare needs all learners, from the first round to the last.
  const isCalm = scenario.faults.some(({ kind }) => kind === "corruptLearner" || kind === "rollLearners");
  const more = Array.from({ length: isCalm ? 0 : random.between(1, 4) }, (): Fault => {
    const kind = random.pick(LEARNER_KINDS);
    const durationMs = random.pick([10, 300, 1_500]);
    return { kind, atMs: random.between(100, 1_800), target: random.between(0, 5), durationMs, point: "now" };
  });
  return {
    ...scenario,
    maxStalenessVersions: 0,
    rounds: isCalm ? { ...rounds, patience: null } : rounds,
    learners,
    shardCount: random.pick([1, 2, 4, 4]),
    ppoEpochs: random.pick([1, 2, 3]),
    faults: [...scenario.faults, ...more].sort((a, b) => a.atMs - b.atMs),
  };
}

const LEARNER_KINDS: readonly FaultKind[] = [
  "killLearner",
  "killLearner",
  "killLearner",
  "pauseLearner",
  "partitionLearner",
  "slowLearner",
  "slowLearner",
  "drainLearner",
];

const KINDS: readonly FaultKind[] = [
  "killRollout",
  "killRollout",
  "killLearner",
  "killLearner",
  "killCoordinator",
  "killCoordinator",
  "killCoordinator",
  "killAll",
  "pauseRollout",
  "pauseLearner",
  "partitionRollout",
  "partitionLearner",
  "slowRollout",
  "slowLearner",
  "drainRollout",
  "drainLearner",
  "clockJump",
];

function makeKeeping(random: Random): Pick<Scenario, "keptCheckpoints" | "damagesCheckpoints"> {
  const keptCheckpoints = random.pick([1, 2, 3]);
  return { keptCheckpoints, damagesCheckpoints: keptCheckpoints > 1 && random.chance(0.3) };
}

function makeCorruption(random: Random): Fault {
  const atMs = random.between(100, 1_500);
  return { kind: "corruptLearner", atMs, target: random.between(0, 2), durationMs: 0, point: "now" };
}

/** Every learner is told to leave, one after another, maybe before the one before is back. */
function makeRolling(random: Random): Fault[] {
  return Array.from({ length: random.between(1, 2) }, (_, i): Fault => {
    const atMs = random.between(100, 1_500) + 3_000 * i;
    return {
      kind: "rollLearners",
      atMs,
      target: 0,
      durationMs: random.pick([0, 10, 250, 600]),
      point: "now",
    };
  });
}

function makeFaults(random: Random): Fault[] {
  return Array.from({ length: random.between(0, 7) }, () => {
    const kind = random.pick(KINDS);
    const points =
      kind === "killCoordinator"
        ? (["now", "beforeSync", "afterSync", "midEffects"] as const)
        : (["now", "in", "out"] as const);
    return {
      kind,
      atMs: random.between(1, random.chance(0.7) ? 2_000 : FAULTS_END_MS),
      target: random.between(0, 5),
      durationMs: random.pick([10, 100, 700, 1_500, 3_000]),
      point: random.pick<Fault["point"]>(points),
    };
  }).sort((a, b) => a.atMs - b.atMs);
}
