/**
 * The one schema of a run: types, defaults, help, JSON schema and the docs table all come from here.
 * Every field: unit in its name, range in its check, effect and the source of its default in `.describe`.
 */
import { z } from "zod";

const positiveInt = z.int().min(1);
const nonNegativeInt = z.int().min(0);
const fraction = z.number().min(0).max(1);

const optimizerSchema = z.strictObject({
  learningRate: z.number().positive().describe("peak learning rate"),
  schedule: z.enum(["cosine", "linear", "constant"]).default("cosine").describe("decay after warm-up, to zero at the last optimizer step"),
  warmupSteps: nonNegativeInt.default(0).describe("optimizer steps of linear warm-up"),
  beta1: fraction.default(0.9),
  beta2: fraction.default(0.95).describe("0.95 as in DeepSpeed-Chat"),
  epsilon: z.number().positive().default(1e-8),
  weightDecay: z.number().min(0).default(0).describe("decoupled; not applied to biases and norm weights"),
  clipNorm: z.number().min(0).default(1).describe("global gradient norm clip; 0 turns it off"),
});

const modelSchema = z.strictObject({
  path: z.string().nullable().default(null).describe("Hugging Face model directory to start from; null starts fresh from `fresh`"),
  fresh: z
    .strictObject({
      family: z.enum(["gpt2"]).default("gpt2"),
      layers: positiveInt.default(2),
      hidden: positiveInt.default(128).describe("model width; must be divisible by heads"),
      heads: positiveInt.default(4),
      contextTokens: positiveInt.default(128).describe("longest sequence the model can hold"),
    })
    .prefault({})
    .describe("shape of a model initialised from the seed when `path` is null"),
  tokenizer: z
    .discriminatedUnion("type", [
      z.strictObject({ type: z.literal("from-model") }),
      z.strictObject({ type: z.literal("path"), path: z.string().describe("directory with tokenizer.json") }),
      z.strictObject({
        type: z.literal("train"),
        vocabularySize: z.int().min(260).default(2048).describe("byte-level BPE trained on the run's own data"),
      }),
    ])
    .default({ type: "from-model" }),
});

const dataSchema = z.strictObject({
  path: z.string().describe("JSONL file, may be .gz"),
  columns: z
    .strictObject({ prompt: z.string().default("prompt"), chosen: z.string().default("chosen"), rejected: z.string().default("rejected"), messages: z.string().default("messages") })
    .prefault({})
    .describe("column names in the file"),
  split: z.tuple([z.number().min(0), z.number().min(0), z.number().min(0)]).default([2, 4, 4]).describe("shares of the rows for sft, reward, ppo"),
  evalFraction: z.number().min(0).max(0.5).default(0.1).describe("share of every phase held out for evaluation"),
  maxPromptTokens: positiveInt.default(64).describe("longer prompts are dropped and counted"),
  maxResponseTokens: positiveInt.default(48).describe("longer answers are dropped and counted (sft, reward)"),
  onBadRow: z.enum(["error", "skip"]).default("error").describe("what a malformed row does; `skip` counts it with a reason"),
  maxRows: positiveInt.nullable().default(null).describe("use only the first rows of the file"),
  promptTemplate: z.string().default("{prompt}").describe("text around a prompt; `{prompt}` is replaced"),
});

const sftSchema = z.strictObject({
  epochs: positiveInt.default(1),
  batchSize: positiveInt.default(32).describe("rows per optimizer step, over all learners"),
  lossOn: z.enum(["answer", "all"]).default("answer").describe("which tokens are trained on; `all` as in DeepSpeed-Chat"),
  optimizer: optimizerSchema.prefault({ learningRate: 1e-3 }),
});

const rewardSchema = z.strictObject({
  path: z.string().nullable().default(null).describe("ready reward model directory; skips training it"),
  initFrom: z.enum(["sft", "base"]).default("sft").describe("backbone the reward model starts from"),
  epochs: positiveInt.default(1),
  batchSize: positiveInt.default(32).describe("preference pairs per optimizer step"),
  loss: z.enum(["end-score", "span"]).default("end-score").describe("`span` averages over the divergent tokens as DeepSpeed-Chat does"),
  optimizer: optimizerSchema.prefault({ learningRate: 5e-4 }),
});

const generationSchema = z.strictObject({
  temperature: z.number().positive().default(1),
  topK: nonNegativeInt.default(0).describe("0 = off; PPO needs 0"),
  topP: z.number().gt(0).max(1).default(1).describe("1 = off; PPO needs 1"),
  minNewTokens: nonNegativeInt.default(0),
  maxNewTokens: positiveInt.default(48),
  repetitionPenalty: z.number().positive().default(1).describe("1 = off; PPO needs 1"),
  slots: positiveInt.max(16).default(16).describe("sequences decoded together; at most 16 keeps tokens independent of batch composition"),
});

const klControllerSchema = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("fixed"), coef: z.number().min(0).default(0.05) }),
  z.strictObject({
    type: z.literal("adaptive"),
    initCoef: z.number().min(0).default(0.1),
    target: z.number().positive().default(6).describe("KL per sequence, nats"),
    horizonExperiences: z.number().positive().default(10_000),
  }),
]);

const ppoSchema = z.strictObject({
  iterations: positiveInt.default(50),
  rolloutBatchSize: positiveInt.default(128).describe("prompts per collection, over all rollout workers"),
  generationBatches: positiveInt.default(1).describe("collections stored before training, as in DeepSpeed-Chat's MiniDataset"),
  samplesPerPrompt: positiveInt.default(1),
  ppoEpochs: positiveInt.default(1),
  minibatchSize: positiveInt.default(64).describe("experiences per optimizer step, over all learners; must divide rolloutBatchSize × samplesPerPrompt × generationBatches"),
  cliprange: z.number().positive().default(0.2),
  cliprangeValue: z.number().positive().default(0.2),
  clipRewardValue: z.number().positive().default(5).describe("scores are clipped to ± this"),
  gamma: fraction.default(1),
  lam: fraction.default(0.95),
  whitenAdvantages: z.boolean().default(true),
  klController: klControllerSchema.prefault({ type: "fixed" }),
  klBudget: z.number().positive().nullable().default(null).describe("stop the stage once the KL to the reference per sequence (nats) passes this; null = no stop"),
  lossDenominator: z.enum(["global-tokens", "microbatch-tokens"]).default("global-tokens").describe("`microbatch-tokens` is DeepSpeed-Chat's; it depends on sharding"),
  eosGap: z.boolean().default(false).describe("DeepSpeed-Chat's quirk: an EOS that equals the pad id is never trained"),
  normalizeScores: z.boolean().default(true).describe("shift and scale scores by the reward model's held-out mean and deviation, fixed for the stage"),
  missingEosPenalty: z.number().min(0).default(0).describe("subtracted from the score of a truncated answer"),
  actor: optimizerSchema.prefault({ learningRate: 1e-4 }),
  critic: optimizerSchema.prefault({ learningRate: 2e-4 }),
  ema: z.strictObject({ decay: fraction.default(0.992) }).nullable().default(null).describe("moving average of the actor, saved beside it; null = off"),
  ptx: z.strictObject({ coef: z.number().positive().default(27.8) }).nullable().default(null).describe("mix in a language-model loss on sft rows; null = off"),
});

const clusterSchema = z.strictObject({
  rollouts: nonNegativeInt.default(2).describe("rollout processes the launcher starts"),
  learners: positiveInt.default(2).describe("learner processes the launcher starts"),
  minLearners: positiveInt.default(1).describe("training pauses below this many"),
  microShards: positiveInt.default(8).describe("fixed shards of every minibatch; results do not depend on how many learners share them. A power of two"),
  host: z.string().default("127.0.0.1").describe("address the coordinator listens on; anything but loopback needs a token"),
  port: nonNegativeInt.default(0).describe("gRPC port; 0 picks a free one"),
  httpPort: nonNegativeInt.default(0).describe("dashboard and metrics port of the coordinator; 0 picks a free one"),
  tokenFile: z.string().nullable().default(null).describe("file with the join token (mode 0600)"),
  insecure: z.boolean().default(false).describe("listen beyond loopback without TLS; the join token is still required"),
  heartbeatIntervalMs: positiveInt.default(1_000),
  leaseTtlMs: positiveInt.default(10_000).describe("a worker silent for this long is lost; at least 4 heartbeats"),
  taskTimeoutMs: positiveInt.default(120_000).describe("a rollout task held longer is given to another worker"),
  stepTimeoutMs: positiveInt.default(60_000).describe("an optimizer step that takes longer is aborted and done again"),
  promptsPerTask: positiveInt.default(16),
  maxTaskAttempts: positiveInt.default(3).describe("after this many failures the prompts are dropped as poison"),
  wire: z.enum(["f32", "bf16"]).default("f32").describe("gradient precision on the wire"),
});

const checkpointSchema = z.strictObject({
  everyIterations: nonNegativeInt.default(10).describe("ppo iterations (or 100 sft/reward steps) between checkpoints; 0 = only at stage ends"),
  keepLast: positiveInt.default(2),
});

const engineSchema = z.strictObject({
  name: z.enum(["auto", "onnx", "tensorflow", "reference"]).default("auto").describe("auto: tensorflow with a visible CUDA device, else onnx"),
  provider: z.enum(["cpu", "webgpu", "cuda"]).default("cpu"),
  threads: positiveInt.nullable().default(null).describe("threads per process; null = cores ÷ busiest role's processes, at least 1"),
});

const evalSchema = z.strictObject({
  prompts: nonNegativeInt.default(128).describe("held-out prompts generated before and after ppo"),
  samples: nonNegativeInt.default(5).describe("answers shown side by side at the end"),
});

export const configSchema = z.strictObject({
  name: z.string().regex(/^[A-Za-z0-9._-]+$/).default("run"),
  seed: nonNegativeInt.default(1),
  preset: z.enum(["default", "deepspeed-chat"]).default("default"),
  stages: z.array(z.enum(["sft", "reward", "ppo"])).min(1).default(["sft", "reward", "ppo"]),
  model: modelSchema.prefault({}),
  data: dataSchema,
  sft: sftSchema.prefault({}),
  reward: rewardSchema.prefault({}),
  ppo: ppoSchema.prefault({}),
  generation: generationSchema.prefault({}),
  cluster: clusterSchema.prefault({}),
  checkpoint: checkpointSchema.prefault({}),
  engine: engineSchema.prefault({}),
  eval: evalSchema.prefault({}),
});

export type Config = z.infer<typeof configSchema>;
export type OptimizerConfig = z.infer<typeof optimizerSchema>;
export type GenerationConfig = z.infer<typeof generationSchema>;
export type KlControllerConfig = z.infer<typeof klControllerSchema>;
export type StageName = Config["stages"][number];
