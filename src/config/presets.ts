/**
 * Named sets of values that lie under what the user gives: `preset:` in a config file, and the two settings the
 * quickstart command runs (they lack `data.path` and the tokenizer, which that command fills in with what it writes).
 */
import type { Config, ConfigInput } from "./schema.js";

type DeepPartial<T> = T extends readonly unknown[]
  ? T
  : T extends object
    ? { [K in keyof T]?: DeepPartial<T[K]> }
    : T;

/** A config with any part left out. */
export type PartialConfig = DeepPartial<ConfigInput>;

/**
 * DeepSpeed-Chat's semantics and hyper-parameters, quirks included (DeepSpeedExamples@83757d9: step1 and step2
 * main.py, ppo_trainer.py, reward_model.py). Lengths are left to the user, who knows the model. Three deliberate
 * differences: answers are sampled (its default is the model's own generation config, often greedy), the ema is off as
 * it is there (`ppo.ema: {decay: 0.992}` turns its average on), and batch sizes are totals, not per device.
 */
const deepspeedChat: PartialConfig = {
  seed: 1234,
  data: { split: [2, 4, 4], evalFraction: 0.1 },
  sft: {
    epochs: 1,
    batchSize: 16,
    lossOn: "all",
    optimizer: {
      learningRate: 1e-3,
      schedule: "cosine",
      warmupSteps: 0,
      beta1: 0.9,
      beta2: 0.95,
      clipNorm: 1,
    },
  },
  reward: {
    initFrom: "base",
    epochs: 1,
    batchSize: 16,
    loss: "span",
    optimizer: {
      learningRate: 5e-5,
      schedule: "cosine",
      warmupSteps: 0,
      beta1: 0.9,
      beta2: 0.95,
      clipNorm: 1,
    },
  },
  ppo: {
    rolloutBatchSize: 16,
    generationBatches: 1,
    samplesPerPrompt: 1,
    ppoEpochs: 1,
    minibatchSize: 16,
    cliprange: 0.2,
    cliprangeValue: 0.2,
    clipRewardValue: 5,
    gamma: 1,
    lam: 0.95,
    whitenAdvantages: false,
    klController: { type: "fixed", coef: 0.1 },
    lossDenominator: "microbatch-tokens",
    eosGap: true,
    normalizeScores: false,
    missingEosPenalty: 0,
    actor: {
      learningRate: 9.65e-6,
      schedule: "cosine",
      warmupSteps: 100,
      beta1: 0.9,
      beta2: 0.95,
      clipNorm: 1,
    },
    critic: {
      learningRate: 5e-6,
      schedule: "cosine",
      warmupSteps: 100,
      beta1: 0.9,
      beta2: 0.95,
      clipNorm: 1,
    },
    ema: null,
    ptx: null,
  },
};

/** Values of `preset: NAME`. `default` only names the union branch, so that `ppo.klController: {coef: 0.1}` is enough. */
export const PRESETS: Readonly<Record<Config["preset"], PartialConfig>> = {
  default: { ppo: { klController: { type: "fixed" } } },
  "deepspeed-chat": deepspeedChat,
};

/** The run of `npm start`: a small model, three stages, a few minutes on a laptop's CPU; examples/quickstart/config.yaml. */
const quickstartPreset: PartialConfig = {
  name: "quickstart",
  model: { fresh: { family: "gpt2", layers: 2, hidden: 128, heads: 4, contextTokens: 48 } },
  data: { split: [2, 4, 4], evalFraction: 0.1, maxPromptTokens: 16, maxResponseTokens: 26 },
  sft: { epochs: 6, batchSize: 32, optimizer: { learningRate: 5e-3, warmupSteps: 10 } },
  reward: { epochs: 2, batchSize: 32, optimizer: { learningRate: 1e-3, warmupSteps: 10 } },
  generation: { maxNewTokens: 28 },
  ppo: {
    iterations: 30,
    rolloutBatchSize: 128,
    minibatchSize: 64,
    ppoEpochs: 2,
    // Looser than this (actor 1e-3, coef 0.05) the policy learns to please the reward model instead: its score goes
    // on rising while the gold score falls to 0. The budget ends a run that goes there.
    klController: { type: "fixed", coef: 0.1 },
    klBudget: 12,
    actor: { learningRate: 3e-4, schedule: "linear" },
    critic: { learningRate: 1e-3, schedule: "linear" },
  },
  cluster: { rollouts: 2, learners: 2 },
  eval: { prompts: 128, samples: 5 },
};

/** The same three stages in seconds: a smoke test of the whole system, too short to learn much. */
const tinyPreset: PartialConfig = {
  ...quickstartPreset,
  name: "tiny",
  model: { fresh: { family: "gpt2", layers: 1, hidden: 32, heads: 2, contextTokens: 48 } },
  sft: { epochs: 2, batchSize: 16, optimizer: { learningRate: 1e-2 } },
  reward: { epochs: 1, batchSize: 16, optimizer: { learningRate: 5e-3 } },
  ppo: {
    iterations: 3,
    rolloutBatchSize: 16,
    minibatchSize: 16,
    actor: { learningRate: 1e-3 },
    critic: { learningRate: 2e-3 },
  },
  cluster: { rollouts: 2, learners: 2, microShards: 4, promptsPerTask: 4 },
  checkpoint: { everyIterations: 2 },
  eval: { prompts: 16, samples: 5 },
};

export type QuickstartPresetName = "quickstart" | "tiny";
export const QUICKSTART_PRESETS: Readonly<Record<QuickstartPresetName, PartialConfig>> = {
  quickstart: quickstartPreset,
  tiny: tinyPreset,
};

/** Preference pairs the quickstart writes. */
export const QUICKSTART_ROWS: Readonly<Record<QuickstartPresetName, number>> = {
  quickstart: 8000,
  tiny: 600,
};

const isMapping = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/**
 * Lays `over` on `under`: mappings merge key by key, everything else replaces. A mapping whose `type` differs is
 * another branch of a union and replaces as a whole.
 */
export function layered(under: unknown, over: unknown): unknown {
  if (over === undefined) return under;
  if (!isMapping(under) || !isMapping(over)) return over;
  if (over.type !== undefined && under.type !== undefined && over.type !== under.type) return over;
  const merged: Record<string, unknown> = { ...under };
  for (const [key, value] of Object.entries(over)) merged[key] = layered(under[key], value);
  return merged;
}
