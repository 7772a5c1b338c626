/** Does PPO reach the exact optimum of a task that can be enumerated? */
import * as tf from "@tensorflow/tfjs";
import type { Engine, HostArrays } from "../engine/engine.js";
import { makeLayout } from "../engine/layout.js";
import { embedding, headLogprobs } from "../engine/ops.js";
import { makeExperience } from "../rl/make-experience.js";
import { policyLoss, type Importance, type PolicyLossInput } from "../rl/policy-loss.js";
import { learningRateAt } from "../rl/schedule.js";
import { shuffled } from "../rl/shuffle.js";
import { experienceStats } from "../rl/stats.js";
import type { Experience, ScoredRollout } from "../rl/types.js";
import { valueLoss } from "../rl/value-loss.js";
import { streamOf, uniformAt } from "../shared/rng.js";
import {
  EOS,
  evaluatePolicy,
  exactOptimum,
  logPolicyAt,
  makeEnumerableTask,
  MAX_TOKENS,
  VOCABULARY,
  type Answer,
  type EnumerableTask,
} from "./enumerable-task.js";
import { TableLearner } from "./table-learner.js";

export interface OptimumOptions {
  readonly seed: number;
  readonly iterations: number;
  readonly rolloutBatchSize: number;
  readonly minibatchSize: number;
  readonly ppoEpochs: number;
  /** Weight of the KL penalty in training. @default the objective's β; anything else misses the optimum */
  readonly klCoef?: number;
  /** Experience is sampled, and valued, by the policy of so many iterations before. @default 0 */
  readonly staleness?: number;
  /** Correction for that; null = none. @default null */
  readonly importance?: Importance | null;
  /** The KL penalty of stale samples is that of the policy that sampled them: what training must not do. @default false */
  readonly hasLaggingPenalty?: boolean;
  /** Peak learning rate of the actor. @default 0.05 */
  readonly learningRate?: number;
}

export const OPTIMUM_DEFAULTS: OptimumOptions = {
  seed: 1,
  iterations: 40,
  rolloutBatchSize: 256,
  minibatchSize: 128,
  ppoEpochs: 2,
};

export interface OptimumResult {
  /** J(π_ref): where training starts. */
  readonly start: number;
  /** J(π) after training. */
  readonly reached: number;
  /** β·log E_ref[exp(r/β)] */
  readonly optimum: number;
  /** (reached − start) / (optimum − start) */
  readonly share: number;
  /** Exact KL(π ‖ π_ref) per answer, nats, beside its k1 estimate on the last rollouts and that of π*. */
  readonly kl: number;
  readonly sampledKl: number;
  readonly optimumKl: number;
}

const OPTIMIZER = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0, clipNorm: 1 };
const CLIPRANGE = 0.2;

/** PPO from π_ref: sample, score, make experience, update actor and critic; then evaluate by enumeration. */
export async function verifyOptimum(
  engine: Engine,
  options: OptimumOptions = OPTIMUM_DEFAULTS,
): Promise<OptimumResult> {
  const task = makeEnumerableTask(options.seed);
  const actor = new TableLearner(
    engine,
    makeLayout({ logits: [task.stateCount, VOCABULARY] }),
    OPTIMIZER,
    task.refLogits,
  );
  const critic = new TableLearner(
    engine,
    makeLayout({ values: [task.stateCount, 1] }),
    OPTIMIZER,
    new Float32Array(task.stateCount),
  );
  const { staleness = 0, importance = null, learningRate = 0.05, hasLaggingPenalty = false } = options;
  const programs = makePrograms(actor, critic, options.minibatchSize, importance);
  /** Tables of the last `staleness` + 1 iterations, oldest first. */
  const versions: { logits: Float32Array; values: Float32Array }[] = [];
  const updates = (options.rolloutBatchSize / options.minibatchSize) * options.ppoEpochs;
  const totalSteps = options.iterations * updates;
  let optimizerStep = 0;
  let sampledKl = 0;
  for (let iteration = 0; iteration < options.iterations; iteration++) {
    const current = (await actor.params.read()).slice();
    versions.push({ logits: current, values: (await critic.params.read()).slice() });
    if (versions.length > staleness + 1) versions.shift();
    const { logits, values } = versions[0];
    const samples = Array.from({ length: options.rolloutBatchSize }, (_, i) =>
      sample(task, logits, options.seed, iteration, i),
    );
    const rollouts = samples.map(({ answer, id }) => ({
      ...score(task, logits, values, answer, id),
      ...(importance === null || hasLaggingPenalty
        ? {}
        : { proximalLogprobs: logprobsUnder(current, answer) }),
    }));
    const experiences = makeExperience(rollouts, {
      klCoef: options.klCoef ?? task.beta,
      clipRewardValue: 5,
      gamma: 1,
      lam: 0.95,
      whitenAdvantages: true,
      eosGap: null,
      missingEosPenalty: 0,
      scoreShift: 0,
      scoreScale: 1,
    });
    sampledKl = experienceStats(experiences).kl;
    const rows = experiences.map((experience, i) => {
      const { answer } = samples[i];
      const proximalLogprobs = logprobsUnder(current, answer);
      return { experience: { ...experience, proximalLogprobs }, states: answer.states };
    });
    for (let epoch = 0; epoch < options.ppoEpochs; epoch++) {
      const order = shuffled(rows, { seed: options.seed, iteration, epoch });
      for (let first = 0; first < order.length; first += options.minibatchSize) {
        const inputs = padRows(order.slice(first, first + options.minibatchSize));
        const rate = (peak: number) =>
          learningRateAt(
            { learningRate: peak, schedule: "linear", warmupSteps: 0 },
            optimizerStep,
            totalSteps,
          );
        await actor.update(
          programs.actor,
          pick(inputs, Object.keys(programs.actor.inputs)),
          rate(learningRate),
        );
        await critic.update(programs.critic, pick(inputs, Object.keys(programs.critic.inputs)), rate(0.1));
        optimizerStep++;
      }
    }
  }
  const start = evaluatePolicy(task, task.refLogits).objective;
  const { objective: reached, kl } = evaluatePolicy(task, await actor.params.read());
  const { objective: optimum, kl: optimumKl } = exactOptimum(task);
  actor.dispose();
  critic.dispose();
  return { start, reached, optimum, share: (reached - start) / (optimum - start), kl, sampledKl, optimumKl };
}

function sample(
  task: EnumerableTask,
  logits: Float32Array,
  seed: number,
  iteration: number,
  index: number,
): { answer: Answer; id: string } {
  const prompt = index % task.prompts;
  const id = `${iteration}/${prompt}/${Math.floor(index / task.prompts)}`;
  const stream = streamOf(id);
  let candidates = task.answers.filter((answer) => answer.prompt === prompt);
  for (let i = 0; ; i++) {
    const policy = logPolicyAt(logits, candidates[0].states[i]).map(Math.exp);
    let left = uniformAt(seed, stream, i);
    const token = policy.findIndex((p) => (left -= p) < 0);
    const chosen = token === -1 ? VOCABULARY - 1 : token; // rounding left a sliver above the last token
    candidates = candidates.filter((answer) => answer.tokens[i] === chosen);
    if (chosen === EOS || i + 1 === MAX_TOKENS) return { answer: candidates[0], id };
  }
}

function score(
  task: EnumerableTask,
  logits: Float32Array,
  values: Float32Array,
  answer: Answer,
  experienceId: string,
): ScoredRollout {
  return {
    promptIndex: answer.prompt,
    sampleIndex: 0,
    experienceId,
    promptIds: Int32Array.of(answer.prompt),
    policyVersion: 0,
    responseIds: Int32Array.from(answer.tokens),
    finishReason: answer.tokens.at(-1) === EOS ? "eos" : "length",
    logprobs: logprobsUnder(logits, answer),
    refLogprobs: logprobsUnder(task.refLogits, answer),
    values: Float32Array.from(answer.states, (state) => values[state]),
    score: answer.reward,
  };
}

function logprobsUnder(table: Float32Array, { tokens, states }: Answer): Float32Array {
  return Float32Array.from(tokens, (token, i) => logPolicyAt(table, states[i])[token]);
}

function makePrograms(
  actor: TableLearner,
  critic: TableLearner,
  rows: number,
  importance: Importance | null,
) {
  const shape = [rows, MAX_TOKENS];
  const column = { shape, dtype: "float32" } as const;
  const ids = { shape, dtype: "int32" } as const;
  const shared = { states: ids, mask: column, denominator: { shape: [], dtype: "float32" } } as const;
  const flatStates = (states: tf.Tensor) => tf.reshape(states, [rows * MAX_TOKENS]);
  return {
    actor: actor.gradProgram(
      `verify-optimum actor B${rows} ${importance?.kind ?? "none"}`,
      {
        ...shared,
        labels: ids,
        oldLogprobs: column,
        ...(importance === null ? {} : { proximalLogprobs: column }),
        advantages: column,
      },
      ({ logits }, inputs) => {
        const labels = tf.reshape(inputs.labels, [rows * MAX_TOKENS]);
        const { logprobs } = headLogprobs(
          embedding(logits, flatStates(inputs.states)),
          identity(VOCABULARY),
          labels,
          1,
        );
        const losses = { ...inputs, logprobs: tf.reshape(logprobs, shape) } as unknown as PolicyLossInput;
        return policyLoss(losses, { cliprange: CLIPRANGE, importance }).loss;
      },
    ),
    critic: critic.gradProgram(
      `verify-optimum critic B${rows}`,
      { ...shared, oldValues: column, returns: column },
      (params, { states, mask, denominator, oldValues, returns }) => {
        const values = tf.reshape(embedding(params.values, flatStates(states)), shape);
        return valueLoss({ values, oldValues, returns, mask, denominator }, { cliprangeValue: CLIPRANGE })
          .loss;
      },
    ),
  };
}

function identity(size: number): tf.Tensor {
  return tf.tensor2d(
    Float32Array.from({ length: size * size }, (_, i) => (i % (size + 1) === 0 ? 1 : 0)),
    [size, size],
  );
}

/** `[B, MAX_TOKENS]` columns; index i is response token i, read in state i. */
function padRows(
  rows: readonly { experience: Experience; states: readonly number[] }[],
): Record<string, Float32Array | Int32Array> {
  const size = rows.length * MAX_TOKENS;
  const place = <A extends Float32Array | Int32Array>(
    target: A,
    of: (row: (typeof rows)[number]) => ArrayLike<number>,
  ): A => {
    rows.forEach((row, b) => target.set(Array.from(of(row)), b * MAX_TOKENS));
    return target;
  };
  const column = (of: (experience: Experience) => ArrayLike<number>) =>
    place(new Float32Array(size), (row) => of(row.experience));
  const mask = column((e) => e.actionMask);
  return {
    states: place(new Int32Array(size), (row) => row.states),
    labels: place(new Int32Array(size), (row) => row.experience.responseIds),
    mask,
    oldLogprobs: column((e) => e.logprobs),
    proximalLogprobs: column((e) => e.proximalLogprobs ?? e.logprobs),
    advantages: column((e) => e.advantages),
    oldValues: column((e) => e.values),
    returns: column((e) => e.returns),
    denominator: Float32Array.of(mask.reduce((sum, bit) => sum + bit, 0)),
  };
}

function pick(inputs: HostArrays, names: readonly string[]): HostArrays {
  return Object.fromEntries(names.map((name) => [name, inputs[name]]));
}
