/**
 * The one schema of a run: types, defaults, help, JSON schema and the docs table all come from here.
 * Every field: unit in its name, range in its check, effect and the source of its default in `.describe`.
 * What one field cannot say alone (divisibility, contradictions) is in resolve.ts.
 */
import { z } from "zod";

const positiveInt = z.int().min(1);
const nonNegativeInt = z.int().min(0);
const fraction = z.number().min(0).max(1);
const port = z.int().min(0).max(65_535);
/** Timers of Node overflow above 2^31 − 1 ms and then fire at once. */
const durationMs = z.int().min(1).max(2_147_483_647);
const adamBeta = z.number().min(0).lt(1);

const optimizerSchema = (learningRate: number) =>
  z.strictObject({
    learningRate: z.number().positive().default(learningRate).describe("peak learning rate of AdamW"),
    schedule: z
      .enum(["cosine", "linear", "constant"])
      .default("cosine")
      .describe("decay after warm-up, to zero at the last optimizer step"),
    warmupSteps: nonNegativeInt.default(0).describe("optimizer steps of linear warm-up"),
    beta1: adamBeta.default(0.9).describe("decay of the first moment"),
    beta2: adamBeta.default(0.95).describe("decay of the second moment; 0.95 as in DeepSpeed-Chat"),
    epsilon: z
      .number()
      .positive()
      .default(1e-8)
      .describe("added to the root of the second moment, as in PyTorch"),
    weightDecay: z.number().min(0).default(0).describe("decoupled; not applied to biases and norm weights"),
    clipNorm: z.number().min(0).default(1).describe("global gradient norm clip; 0 turns it off"),
  });

const loraSchema = z.strictObject({
  rank: positiveInt.default(8).describe("inner width of an adapter; PEFT's default"),
  alpha: z
    .number()
    .positive()
    .default(16)
    .describe("an adapter's product is scaled by alpha / rank; 1 as in DeepSpeed-Chat"),
  dropout: z
    .number()
    .min(0)
    .max(0.9)
    .default(0)
    .describe(
      "share of an adapter's inputs that sft and reward training drop at random; ppo trains what sampled, so it drops nothing",
    ),
  targetModules: z
    .array(z.string().min(1))
    .min(1)
    .default(["all-linear"])
    .describe("endings of module names, as PEFT's target_modules; `all-linear`: all but embeddings and head"),
  onlyOptimizeLora: z
    .boolean()
    .default(true)
    .describe("freeze the base; adapters and a scalar head are still trained. false trains everything"),
});

const modelSchema = z.strictObject({
  path: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe("Hugging Face model directory to start from; null starts fresh from `fresh`"),
  fresh: z
    .strictObject({
      family: z.enum(["gpt2"]).default("gpt2").describe("architecture"),
      layers: positiveInt.default(2).describe("transformer blocks"),
      hidden: positiveInt.default(128).describe("model width; must be divisible by heads"),
      heads: positiveInt.default(4).describe("attention heads"),
      contextTokens: positiveInt
        .default(128)
        .describe("longest sequence the model can hold, prompt and answer together"),
    })
    .prefault({})
    .describe("shape of a model initialised from the seed when `model.path` is null"),
  tokenizer: z
    .discriminatedUnion("type", [
      z.strictObject({ type: z.literal("from-model").describe("the tokenizer inside `model.path`") }),
      z.strictObject({
        type: z.literal("path").describe("a ready tokenizer"),
        path: z.string().min(1).describe("directory with tokenizer.json"),
      }),
      z.strictObject({
        type: z.literal("train").describe("byte-level BPE trained on the run's own data"),
        vocabularySize: z
          .int()
          .min(260)
          .max(1_000_000)
          .default(2048)
          .describe("tokens, of which 256 are the bytes and a few are special"),
      }),
    ])
    .default({ type: "from-model" })
    .describe("when left out and `model.path` is null: `train`"),
  lora: loraSchema.nullable().default(null).describe("train low-rank adapters; null = the whole model"),
});

const dataSchema = z.strictObject({
  path: z.string().min(1).describe("JSONL file, may be .gz"),
  columns: z
    .strictObject({
      prompt: z.string().min(1).default("prompt").describe("column with the prompt"),
      chosen: z.string().min(1).default("chosen").describe("column with the preferred answer"),
      rejected: z.string().min(1).default("rejected").describe("column with the other answer"),
      messages: z
        .string()
        .min(1)
        .default("messages")
        .describe("column with a chat, instead of prompt and chosen"),
    })
    .prefault({})
    .describe("column names in the file"),
  split: z
    .tuple([z.number().min(0), z.number().min(0), z.number().min(0)])
    .default([2, 4, 4])
    .describe("shares of the rows for sft, reward, ppo; DeepSpeed-Chat's 2,4,4"),
  evalFraction: z
    .number()
    .min(0)
    .max(0.5)
    .default(0.1)
    .describe("share of every phase held out for evaluation"),
  maxPromptTokens: positiveInt.default(64).describe("longer prompts are dropped and counted"),
  maxResponseTokens: positiveInt.default(48).describe("longer answers are dropped and counted (sft, reward)"),
  onBadRow: z
    .enum(["error", "skip"])
    .default("error")
    .describe("what a malformed row does; `skip` counts it with a reason"),
  maxRows: positiveInt.nullable().default(null).describe("use only the first rows of the file; null = all"),
  promptTemplate: z
    .string()
    .includes("{prompt}")
    .default("{prompt}")
    .describe("text around a prompt; `{prompt}` is replaced"),
});

const sftSchema = z.strictObject({
  epochs: positiveInt.default(1).describe("passes over the sft rows"),
  batchSize: positiveInt.default(32).describe("rows per optimizer step, over all learners"),
  lossOn: z
    .enum(["answer", "all"])
    .default("answer")
    .describe("which tokens are trained on; `all` as in DeepSpeed-Chat"),
  optimizer: optimizerSchema(1e-3).prefault({}).describe("AdamW of the sft stage"),
});

const rewardSchema = z.strictObject({
  path: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe("ready reward model directory; skips training it"),
  initFrom: z.enum(["sft", "base"]).default("sft").describe("backbone the reward model starts from"),
  epochs: positiveInt.default(1).describe("passes over the preference pairs"),
  batchSize: positiveInt.default(32).describe("preference pairs per optimizer step, over all learners"),
  loss: z
    .enum(["end-score", "span"])
    .default("end-score")
    .describe(
      "`end-score` compares the scores at the last tokens; `span` averages over the divergent tokens as DeepSpeed-Chat does",
    ),
  optimizer: optimizerSchema(5e-4).prefault({}).describe("AdamW of the reward stage"),
});

const generationSchema = z.strictObject({
  temperature: z.number().positive().default(1).describe("also applied to every log-probability PPO uses"),
  topK: nonNegativeInt.default(0).describe("0 = off; ppo needs 0"),
  topP: z.number().gt(0).max(1).default(1).describe("1 = off; ppo needs 1"),
  minNewTokens: nonNegativeInt
    .default(0)
    .describe("the end token is impossible before this many; ppo needs 0"),
  maxNewTokens: positiveInt.default(48).describe("answers are cut here"),
  repetitionPenalty: z.number().positive().default(1).describe("1 = off; ppo needs 1"),
  stopStrings: z
    .array(z.string().min(1).max(64))
    .max(8)
    .default([])
    .describe("texts that end an answer (`stop`, no truncation); the token that completes one stays in it"),
  slots: positiveInt
    .max(64)
    .default(16)
    .describe(
      "sequences decoded together; 32 take less time per token than 16 where there are as many prompts",
    ),
});

const klControllerSchema = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("fixed").describe("the same coefficient for the whole stage"),
    coef: z.number().min(0).default(0.05).describe("weight of the KL penalty in the reward; TRL's default"),
  }),
  z.strictObject({
    type: z.literal("adaptive").describe("coefficient that steers the KL to a target (Ziegler et al. 2019)"),
    initCoef: z.number().min(0).default(0.1).describe("weight at the start"),
    target: z.number().positive().default(6).describe("KL per sequence, nats"),
    horizonExperiences: z
      .number()
      .positive()
      .default(10_000)
      .describe("experiences over which the error is corrected"),
  }),
]);

const ppoSchema = z.strictObject({
  iterations: positiveInt.default(50).describe("times that experience is collected and then trained on"),
  rolloutBatchSize: positiveInt.default(128).describe("prompts per collection, over all rollout workers"),
  generationBatches: positiveInt
    .default(1)
    .describe("collections stored before training, as in DeepSpeed-Chat's MiniDataset"),
  samplesPerPrompt: positiveInt.default(1).describe("answers sampled for each prompt"),
  ppoEpochs: positiveInt.default(1).describe("passes over the stored experience before it is freed"),
  minibatchSize: positiveInt
    .default(64)
    .describe(
      "experiences per optimizer step, over all learners; must divide rolloutBatchSize × samplesPerPrompt × generationBatches",
    ),
  staleness: nonNegativeInt
    .max(64)
    .default(0)
    .describe(
      "policy versions by which experience may be behind the policy it trains; 0 collects and trains in turn, the same bits every time; above 0 the next iterations are collected while this one trains",
    ),
  importance: z
    .enum(["none", "decoupled", "truncated"])
    .default("decoupled")
    .describe(
      "correction for stale experience: `decoupled` clips around the policy at the start of the update and weighs by how far it has left the one that sampled, tokens beyond importanceCap weighing nothing (AReaL); `truncated` the same with weights cut to importanceCap (verl's tis); `none` clips around the policy that sampled",
    ),
  importanceCap: z
    .number()
    .min(1)
    .default(5)
    .describe("largest weight of a stale token in the policy loss; AReaL's default"),
  cliprange: z.number().positive().default(0.2).describe("policy ratio is clipped to 1 ± this"),
  cliprangeValue: z
    .number()
    .positive()
    .default(0.2)
    .describe("new values are clipped to the old ones ± this"),
  clipRewardValue: z.number().positive().default(5).describe("scores are clipped to ± this"),
  gamma: fraction.default(1).describe("discount"),
  lam: fraction.default(0.95).describe("λ of generalised advantage estimation"),
  whitenAdvantages: z
    .boolean()
    .default(true)
    .describe("shift and scale advantages to mean 0 and deviation 1"),
  klController: klControllerSchema.prefault({ type: "fixed" }).describe("weight of the KL penalty"),
  klBudget: z
    .number()
    .positive()
    .nullable()
    .default(null)
    .describe("stop the stage once the KL to the reference per sequence (nats) passes this; null = no stop"),
  lossDenominator: z
    .enum(["global-tokens", "microbatch-tokens"])
    .default("global-tokens")
    .describe("`microbatch-tokens` is DeepSpeed-Chat's; it depends on sharding"),
  eosGap: z
    .boolean()
    .default(false)
    .describe("DeepSpeed-Chat's quirk: an end token that equals the pad id is never trained"),
  normalizeScores: z
    .boolean()
    .default(true)
    .describe(
      "shift and scale scores by the reward model's held-out mean and deviation, fixed for the stage",
    ),
  missingEosPenalty: z.number().min(0).default(0).describe("subtracted from the score of a truncated answer"),
  actor: optimizerSchema(1e-4).prefault({}).describe("AdamW of the policy"),
  critic: optimizerSchema(2e-4).prefault({}).describe("AdamW of the value model"),
  ema: z
    .strictObject({
      decay: fraction
        .default(0.992)
        .describe("share of the old average kept at each optimizer step; DeepSpeed-Chat's"),
    })
    .nullable()
    .default(null)
    .describe("moving average of the actor, saved beside it; null = off"),
  ptx: z
    .strictObject({
      coef: z
        .number()
        .positive()
        .default(27.8)
        .describe("weight of the language-model loss; DeepSpeed-Chat's"),
    })
    .nullable()
    .default(null)
    .describe("mix in a language-model loss on sft rows; null = off"),
});

const pemFile = z.string().min(1).nullable().default(null);

const tlsSchema = z.strictObject({
  cert: pemFile.describe("PEM certificate of the coordinator (server.crt); null = plaintext"),
  key: pemFile.describe("its private key (server.key, mode 0600)"),
  clientCa: pemFile.describe(
    "authority that must have signed the certificate of every worker and tool (ca.crt)",
  ),
  ca: pemFile.describe("authority by which the workers started here know the coordinator (ca.crt)"),
  clientCert: pemFile.describe("certificate they show when there is a `clientCa` (client.crt)"),
  clientKey: pemFile.describe("its private key (client.key)"),
});

const durableSchema = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("local").describe("the journal is a folder of the run directory") }),
  z.strictObject({
    type: z.literal("nats").describe("journal and lead are kept by NATS servers with JetStream"),
    servers: z.array(z.string().min(1)).min(1).describe("their addresses, host:port"),
    replicas: positiveInt.max(5).default(1).describe("servers that keep a copy; 3 survive the loss of one"),
    run: z
      .string()
      .regex(/^[A-Za-z0-9_-]+$/)
      .max(64)
      .nullable()
      .default(null)
      .describe("names the run's streams; null = `name`, with other characters turned into `-`"),
    files: z
      .enum(["nats", "disk"])
      .default("nats")
      .describe(
        "where checkpoints, models and current weights are kept: nats = by the servers too, so that each coordinator has a run directory of its own; disk = in a run directory that all of them mount",
      ),
    tokenFile: z
      .string()
      .min(1)
      .nullable()
      .default(null)
      .describe(
        "file with the servers' token, or with a user and a password (mode 0600); needed beyond loopback",
      ),
    caFile: pemFile.describe(
      "authority by which the servers are known; without it, servers beyond loopback need `insecure`",
    ),
    leaseTtlMs: durationMs
      .min(1_000)
      .default(5_000)
      .describe("a coordinator silent for this long is replaced by one that stands by"),
    advertise: z
      .string()
      .regex(/:\d+$/)
      .nullable()
      .default(null)
      .describe("host:port where workers reach this coordinator; null = as it listens"),
  }),
]);

const clusterSchema = z.strictObject({
  rollouts: nonNegativeInt.max(4096).default(2).describe("rollout processes the launcher starts"),
  learners: nonNegativeInt
    .max(4096)
    .default(2)
    .describe("learner processes the launcher starts; 0 when they join from elsewhere"),
  minLearners: positiveInt.default(1).describe("training pauses below this many"),
  microShards: positiveInt
    .max(4096)
    .default(8)
    .describe(
      "fixed shards of every minibatch; results do not depend on how many learners share them. A power of two that divides every batch size",
    ),
  host: z
    .string()
    .min(1)
    .default("127.0.0.1")
    .describe(
      "address the coordinator listens on; beyond loopback it needs `tokenFile`, and `tls` or `insecure`",
    ),
  port: port.default(0).describe("gRPC port; 0 picks a free one"),
  httpPort: port.default(0).describe("dashboard and metrics port of the coordinator; 0 picks a free one"),
  tokenFile: z
    .string()
    .min(1)
    .nullable()
    .default(null)
    .describe("file with the join token, or one line `ROLE TOKEN` per role (mode 0600)"),
  tls: tlsSchema.prefault({}).describe("encryption; `troupe certs init DIR` makes the files"),
  insecure: z
    .boolean()
    .default(false)
    .describe("listen beyond loopback, and reach NATS servers there, without TLS; tokens are still required"),
  memoryCheck: z
    .boolean()
    .default(true)
    .describe("refuse processes that will need more memory than their machine has; false: say so and go on"),
  maxArtifactBytes: positiveInt
    .default(64 * 2 ** 30)
    .describe("largest model or training state a learner may hand in; more is refused before it is sent"),
  maxConnectionsPerAddress: positiveInt
    .default(2_048)
    .describe(
      "connections the coordinator takes from one address (IPv6: from one network of 64 bits); a rollout worker needs one, a learner two",
    ),
  maxConnections: positiveInt.default(16_384).describe("connections the coordinator takes in all"),
  heartbeatIntervalMs: durationMs.default(1_000).describe("how often a worker reports that it lives"),
  leaseTtlMs: durationMs
    .default(10_000)
    .describe("a worker silent for this long is lost; at least 4 heartbeats"),
  taskTimeoutMs: durationMs
    .default(120_000)
    .describe(
      "a rollout task whose worker makes no token, no scoring pass and fetches nothing for this long is given to another, and a worker whose compute thread hangs for this long ends; longer than leaseTtlMs",
    ),
  stepTimeoutMs: durationMs
    .default(60_000)
    .describe(
      "an optimizer step that takes longer is aborted and done again (a round may take `syncEvery` times this), with up to 8 times as long when no learner was in time; longer than leaseTtlMs",
    ),
  healTimeoutMs: durationMs
    .default(600_000)
    .describe(
      "a learner that takes longer to load or copy parameters, or to hand them over, is given up and may join again. The others wait for it for `stepTimeoutMs` (twice as long each time it comes too late), then train on without it",
    ),
  drainTimeoutMs: durationMs
    .default(20_000)
    .describe(
      "how long a learner that was told to leave (SIGTERM) stays while it alone holds the newest state, for others to copy it; shorter than its supervisor's grace",
    ),
  bucketTimeoutMs: durationMs
    .default(30_000)
    .describe(
      "a step is done again when, with all learners there, no piece of the gradient moves for this long",
    ),
  promptsPerTask: positiveInt.default(16).describe("prompts a rollout worker takes at a time"),
  maxTaskAttempts: positiveInt
    .default(3)
    .describe(
      "after this many failures a task's prompts are tried one by one, each by a worker with nothing else to do; what two workers fail with then is dropped as poison",
    ),
  hedgeFactor: z
    .number()
    .min(0)
    .default(2)
    .describe(
      "once no prompts wait, a task that takes this many times the mean goes to an idle worker as well; 0 = never",
    ),
  sync: z
    .enum(["gradients", "parameters"])
    .default("gradients")
    .describe(
      "what learners exchange: gradients at every optimizer step, or parameters every `syncEvery` steps (local SGD, DiLoCo); see docs/parameter-averaging.md",
    ),
  syncEvery: positiveInt
    .max(100_000)
    .default(16)
    .describe("parameters: optimizer steps each learner takes on its own rows between two averages"),
  outerLearningRate: z
    .number()
    .positive()
    .default(0.7)
    .describe("parameters: step along the averaged change; 0.7 as in DiLoCo, 1 is plain averaging"),
  outerMomentum: z
    .number()
    .min(0)
    .lt(1)
    .default(0.5)
    .describe(
      "parameters: Nesterov momentum of the averaged change; 0 is plain averaging. DiLoCo's 0.9 is for hundreds of rounds",
    ),
  averageMoments: z
    .boolean()
    .default(true)
    .describe(
      "parameters: average AdamW's moments too, for three times the bytes; false starts them from 0 in every round",
    ),
  roundPatience: z
    .number()
    .min(0)
    .nullable()
    .default(0.5)
    .describe(
      "parameters: once half of the learners have finished a round, the others get this share of its time more (at least 1 s), then contribute what they have; null waits for all of them, and equal runs give equal bits",
    ),
  wire: z
    .enum(["f32", "bf16"])
    .default("f32")
    .describe(
      "gradient precision on the wire; with bf16 every sum of the fixed tree is rounded, so results still do not depend on how many learners there are",
    ),
  bulkChannel: z
    .enum(["auto", "on", "off"])
    .default("auto")
    .describe(
      "gradients over plain TCP (TLS 1.3 with `tls`) beside gRPC: several times faster, the same bits; auto: where the coordinator listens on loopback, or `bulkPort` is given",
    ),
  bulkPort: port.default(0).describe("the coordinator's port of the bulk channel; 0 picks a free one"),
  allReduce: z
    .enum(["auto", "star", "sharded"])
    .default("auto")
    .describe(
      "who sums gradients: the coordinator (star), or every learner a part of them, over bulk connections that learners open to each other (sharded); the same bits. auto: sharded where all processes reach the coordinator on loopback and there is a bulk channel, else star",
    ),
  durable: durableSchema
    .default({ type: "local" })
    .describe("where the coordinator keeps what must outlive it; see docs/high-availability.md"),
});

const checkpointSchema = z.strictObject({
  everyIterations: nonNegativeInt
    .default(10)
    .describe("ppo iterations (or 100 sft/reward steps) between checkpoints; 0 = only at stage ends"),
  keepLast: positiveInt
    .default(2)
    .describe("newest checkpoints kept; when one is damaged the run goes on from the one before"),
  keepEvery: nonNegativeInt
    .default(0)
    .describe(
      "also keep every checkpoint after a multiple of this many iterations (or sft/reward steps); 0 = none",
    ),
});

const engineSchema = z.strictObject({
  name: z
    .enum(["auto", "onnx", "tensorflow", "reference"])
    .default("auto")
    .describe(
      "auto: tensorflow when it computes on a CUDA device and no setting here is one of onnx alone (`provider`, `recompute`, `frozenWeights`), else onnx",
    ),
  provider: z
    .enum(["cpu", "webgpu", "cuda"])
    .default("cpu")
    .describe("where onnx runs; the other engines need `cpu`"),
  threads: positiveInt
    .max(1024)
    .nullable()
    .default(null)
    .describe(
      "threads per process; null = 1. On the CPU a learner computes as many micro-shards side by side, a rollout worker as many scoring passes, with the bits of one thread; generation, and a learner with fewer runs in a minibatch than threads, splits products over them, which may change last bits",
    ),
  microBatchTokens: positiveInt
    .default(1024)
    .describe(
      "tokens a learner runs forward and backward at once, padding included; a micro-shard takes as many runs as it needs. Memory grows with it",
    ),
  recompute: z
    .enum(["none", "layers"])
    .default("none")
    .describe(
      "`layers`: gradients keep only the input of every layer and compute the rest again; the same numbers from less memory in more time. onnx only",
    ),
  frozenWeights: z
    .enum(["f32", "int8"])
    .default("f32")
    .describe(
      "how rollout workers hold reference and reward model. `int8`: under half the memory and time, log-probabilities and scores off in the third digit (docs/memory.md). onnx on the CPU only",
    ),
});

const evalSchema = z.strictObject({
  prompts: nonNegativeInt.default(128).describe("held-out prompts generated before and after ppo"),
  samples: nonNegativeInt.default(5).describe("answers shown side by side at the end"),
});

export const configSchema = z.strictObject({
  name: z
    .string()
    .regex(/^[A-Za-z0-9._-]+$/)
    .max(100)
    .default("run")
    .describe("label of the run: letters, digits, `.`, `_`, `-`"),
  seed: nonNegativeInt.max(4_294_967_295).default(1).describe("of everything random; same seed, same run"),
  preset: z
    .enum(["default", "deepspeed-chat"])
    .default("default")
    .describe("values applied under the ones given here"),
  stages: z
    .array(z.enum(["sft", "reward", "ppo"]))
    .min(1)
    .default(["sft", "reward", "ppo"])
    .describe("what to run, in this order"),
  model: modelSchema.prefault({}).describe("the language model everything starts from"),
  data: dataSchema.describe("the data set"),
  sft: sftSchema.prefault({}).describe("supervised fine-tuning"),
  reward: rewardSchema.prefault({}).describe("the reward model"),
  ppo: ppoSchema.prefault({}).describe("reinforcement learning"),
  generation: generationSchema.prefault({}).describe("sampling of answers"),
  cluster: clusterSchema.prefault({}).describe("processes, addresses and time limits"),
  checkpoint: checkpointSchema.prefault({}).describe("saving"),
  engine: engineSchema.prefault({}).describe("what computes"),
  eval: evalSchema.prefault({}).describe("what is measured before and after ppo"),
});

export type Config = z.infer<typeof configSchema>;
/** What a user may write: every field with a default is optional. */
export type ConfigInput = z.input<typeof configSchema>;
export type OptimizerConfig = z.infer<ReturnType<typeof optimizerSchema>>;
export type StageName = Config["stages"][number];
