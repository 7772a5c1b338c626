import { describe, expect, it } from "vitest";
import type { UpdateStats } from "../../../src/coordinator/ppo-update.js";
import {
  intoBatches,
  trainLoop,
  type LoopState,
  type TrainLoopOptions,
  type Troupe,
} from "../../../src/coordinator/train-loop.js";
import { startKlController } from "../../../src/rl/kl-controller.js";
import type { Experience, Prompt, ScoredRollout } from "../../../src/rl/types.js";

const TOKENS = 2;

/** A rollout of two tokens whose log-ratio to the reference adds up to `kl`. */
const rolloutOf = (
  { experienceId, promptIndex }: Pick<Prompt, "experienceId" | "promptIndex">,
  kl: number,
  policyVersion: number,
): ScoredRollout => ({
  experienceId,
  promptIndex,
  sampleIndex: 0,
  promptIds: Int32Array.of(1),
  policyVersion,
  responseIds: new Int32Array(TOKENS).fill(3),
  logprobs: new Float32Array(TOKENS).fill(-1),
  refLogprobs: new Float32Array(TOKENS).fill(-1 - kl / TOKENS),
  values: Float32Array.of(0.25, -0.25),
  score: promptIndex,
  finishReason: "eos",
});

const stats = (optimizerSteps: number): UpdateStats => ({
  sums: {},
  tokens: 0,
  measuredSteps: optimizerSteps,
  optimizerSteps,
  skippedSteps: 0,
  allReduceMs: 0,
  elapsedMs: 0,
});

/** Plays every role and writes down what it is asked for. */
class Recorder implements Troupe {
  readonly story: string[] = [];
  readonly minibatches: Experience[][] = [];
  readonly commits: LoopState[] = [];

  constructor(
    readonly promptsPerIteration = 4,
    readonly klOf: (iteration: number) => number = () => 0,
  ) {}

  nextPrompts(iteration: number, cursor: number) {
    this.story.push(`prompts ${iteration} from ${cursor}`);
    const prompts = Array.from({ length: this.promptsPerIteration }, (_, promptIndex): Prompt => {
      return {
        promptIndex,
        sampleIndex: 0,
        experienceId: `${iteration}/${promptIndex}/0`,
        promptIds: Int32Array.of(1),
      };
    });
    return { prompts, nextCursor: cursor + prompts.length };
  }
  ask(iteration: number, _prompts: readonly Prompt[], oldestVersion: number) {
    this.story.push(`ask ${iteration} from v${oldestVersion}`);
  }
  perform(iteration: number, prompts: readonly Prompt[], policyVersion: number) {
    this.story.push(`perform ${iteration} with v${policyVersion}`);
    return Promise.resolve(prompts.map((prompt) => rolloutOf(prompt, this.klOf(iteration), policyVersion)));
  }
  reassess(_state: LoopState, rollouts: readonly ScoredRollout[]) {
    return Promise.resolve(rollouts);
  }
  update({ iteration }: LoopState, minibatches: readonly (readonly Experience[])[]) {
    this.story.push(`update ${iteration}: ${minibatches.map((rows) => rows.length).join("+")}`);
    this.minibatches.push(...minibatches.map((rows) => [...rows]));
    return Promise.resolve(stats(minibatches.length));
  }
  publish(policyVersion: number) {
    this.story.push(`publish v${policyVersion}`);
    return Promise.resolve();
  }
  commit(state: LoopState) {
    this.story.push(`commit ${state.iteration}`);
    this.commits.push(state);
    return Promise.resolve();
  }
  report(iteration: number, _experience: unknown, _update: unknown, klCoef: number) {
    this.story.push(`report ${iteration} at ${klCoef}`);
  }
}

const options = (changes: Partial<TrainLoopOptions> = {}): TrainLoopOptions => ({
  iterations: 2,
  staleness: 0,
  generationBatches: 1,
  minibatchSize: 2,
  klBudget: null,
  experience: {
    clipRewardValue: 5,
    gamma: 1,
    lam: 1,
    whitenAdvantages: false,
    missingEosPenalty: 0,
    scoreShift: 0,
    scoreScale: 1,
    eosGap: null,
  },
  ...changes,
});
const start = (changes: Partial<LoopState> = {}): LoopState => ({
  iteration: 0,
  policyVersion: 0,
  klController: startKlController({ type: "fixed", coef: 0.5 }),
  promptCursor: 0,
  optimizerSteps: 0,
  isKlBudgetSpent: false,
  ...changes,
});

describe("trainLoop", () => {
  it("tells the story in order: prompts, perform, update, publish, commit, report", async () => {
    const troupe = new Recorder();
    const end = await trainLoop(troupe, options(), start());
    expect(troupe.story).toEqual([
      "prompts 0 from 0",
      "perform 0 with v0",
      "update 0: 2+2",
      "publish v1",
      "commit 1",
      "report 0 at 0.5",
      "prompts 1 from 4",
      "perform 1 with v1",
      "update 1: 2+2",
      "publish v2",
      "commit 2",
      "report 1 at 0.5",
    ]);
    expect(end).toMatchObject({ iteration: 2, policyVersion: 2, promptCursor: 8, optimizerSteps: 4 });
    expect(troupe.commits.at(-1)).toEqual(end);
  });

  it("goes on from any committed state as if it had never stopped", async () => {
    const whole = new Recorder();
    const end = await trainLoop(whole, options({ iterations: 3 }), start());
    for (const [i, state] of whole.commits.entries()) {
      const rest = new Recorder();
      expect(await trainLoop(rest, options({ iterations: 3 }), structuredClone(state))).toEqual(end);
      expect(rest.story).toEqual(whole.story.slice((i + 1) * 6));
    }
  });

  it("makes rewards with the controller's coefficient, which follows the KL only between iterations", async () => {
    const controller = startKlController({
      type: "adaptive",
      initCoef: 0.5,
      target: 1,
      horizonExperiences: 40,
    });
    const troupe = new Recorder(4, () => 3);
    await trainLoop(troupe, options(), start({ klController: controller }));
    // kl 3 is above 1.2 × the target: β ← β · (1 + 0.2 · 4 / 40)
    expect(troupe.commits.map((state) => state.klController.coef)).toEqual([
      0.5 * 1.02,
      expect.closeTo(0.5 * 1.02 ** 2, 12),
    ]);
    expect(troupe.story.filter((line) => line.startsWith("report"))).toEqual([
      "report 0 at 0.5",
      `report 1 at ${0.5 * 1.02}`,
    ]);
    const { rewards, score } = troupe.minibatches[0][1];
    expect([...rewards]).toEqual([expect.closeTo(-0.5 * 1.5, 6), expect.closeTo(-0.5 * 1.5 + score, 6)]);
  });

  it("stops after the iteration whose KL passed the budget, not at it, and stays stopped when continued", async () => {
    const troupe = new Recorder(4, (iteration) => [1, 2, 2.5, 9][iteration]);
    const end = await trainLoop(troupe, options({ iterations: 10, klBudget: 2 }), start());
    expect(end).toMatchObject({ iteration: 3, isKlBudgetSpent: true });
    expect(troupe.commits.map((state) => state.isKlBudgetSpent)).toEqual([false, false, true]);
    const continued = new Recorder();
    expect(await trainLoop(continued, options({ iterations: 10, klBudget: 2 }), end)).toEqual(end);
    expect(continued.story).toEqual([]);
  });

  it("stores the generation batches of an iteration and never mixes two in one minibatch", async () => {
    const troupe = new Recorder(6);
    await trainLoop(troupe, options({ iterations: 1, generationBatches: 2, minibatchSize: 2 }), start());
    expect(troupe.story).toContain("update 0: 2+1+2+1");
    const ids = troupe.minibatches.flat().map(({ promptIndex }) => promptIndex);
    expect(ids).toEqual([0, 1, 2, 3, 4, 5]);
  });

  it("whitens each generation batch by itself", async () => {
    const troupe = new Recorder(4);
    const whitening = { ...options().experience, whitenAdvantages: true };
    await trainLoop(troupe, options({ iterations: 1, generationBatches: 2, experience: whitening }), start());
    for (const rows of [troupe.minibatches[0], troupe.minibatches[1]]) {
      const advantages = rows.flatMap((row) => [...row.advantages]);
      expect(advantages.reduce((sum, value) => sum + value, 0)).toBeCloseTo(0, 5);
    }
  });
});

describe("trainLoop with staleness 2", () => {
  it("asks for the next two iterations before it trains, each from the oldest policy it may use", async () => {
    const troupe = new Recorder();
    const end = await trainLoop(troupe, options({ iterations: 4, staleness: 2 }), start());
    const asked = troupe.story.filter((line) => /^(ask|prompts|perform|update)/.test(line));
    expect(asked).toEqual([
      "prompts 0 from 0",
      "ask 0 from v0",
      "prompts 1 from 4",
      "ask 1 from v0",
      "prompts 2 from 8",
      "ask 2 from v0",
      "perform 0 with v0",
      "update 0: 2+2",
      "prompts 3 from 12",
      "ask 3 from v1",
      "perform 1 with v0",
      "update 1: 2+2",
      "perform 2 with v0",
      "update 2: 2+2",
      "perform 3 with v1",
      "update 3: 2+2",
    ]);
    expect(end).toMatchObject({ iteration: 4, policyVersion: 4, promptCursor: 16 });
  });

  it("goes on from any committed state: what was asked for is asked for again, with the same prompts", async () => {
    const settings = options({ iterations: 5, staleness: 2 });
    const whole = new Recorder();
    const end = await trainLoop(whole, settings, start());
    const promptsOf = (story: readonly string[]) => story.filter((line) => line.startsWith("prompts"));
    for (const state of whole.commits.slice(0, -1)) {
      const rest = new Recorder();
      expect(await trainLoop(rest, settings, structuredClone(state))).toEqual(end);
      expect(promptsOf(rest.story)).toEqual(promptsOf(whole.story).slice(state.iteration));
      const oldest = Math.max(0, state.policyVersion - 2);
      expect(rest.story).toContain(`ask ${state.iteration} from v${oldest}`);
    }
  });
});

describe("intoBatches", () => {
  it.each([
    [8, 2, [4, 4]],
    [7, 2, [4, 3]],
    [1, 2, [1, 0]],
    [6, 1, [6]],
  ])("splits %i rollouts into %i groups in order: %j", (rows, count, sizes) => {
    const batches = intoBatches(
      Array.from({ length: rows }, (_, i) => i),
      count,
    );
    expect(batches.map((batch) => batch.length)).toEqual(sizes);
    expect(batches.flat()).toEqual(Array.from({ length: rows }, (_, i) => i));
  });
});
