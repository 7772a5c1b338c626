/**
 * How much memory each process of a run will need at its peak, from the config alone: nothing is loaded. The formulas
 * and how far they were from measured processes are in docs/memory.md.
 */
import type { Config } from "../config/schema.js";
import { engineOf, hostFacts } from "../engine/choice.js";
import { frozenBytes } from "../engine/frozen-weights.js";
import { frozenForm } from "../models/frozen.js";
import { cacheLayout } from "../models/cache-layout.js";
import { frozenLayout, trainedLayout, withLora } from "../models/lora.js";
import { layoutOf, withHead, type ModelSpec } from "../models/model-spec.js";
import { subtreesOf } from "../learner/tree-sum.js";
import { WINDOW } from "../reduce/reduction.js";
import { givenRewardSpec, policySpec } from "./memory-models.js";
import {
  decodeElements,
  gradientElements,
  gradientSessionBytes,
  int8SessionBytes,
  largestRun,
  passElements,
  passSessionBytes,
} from "./memory-programs.js";

export interface MemoryPart {
  readonly name: string;
  readonly bytes: number;
  /** On the worker's GPU instead of in the machine's memory. @default false */
  readonly isOnDevice?: boolean;
}

export interface ProcessEstimate {
  readonly role: "coordinator" | "learner" | "rollout" | "launcher";
  /** How many of them the launcher starts. */
  readonly count: number;
  /** Stage in which one needs most. */
  readonly stage: string;
  readonly parts: readonly MemoryPart[];
  /** Of one process, in the machine's memory. */
  readonly bytes: number;
  /** Of one process, on its GPU. */
  readonly deviceBytes: number;
}

export interface MemoryEstimate {
  /** Of one language model. */
  readonly parameters: number;
  readonly processes: readonly ProcessEstimate[];
  readonly totalBytes: number;
}

const FLOAT_BYTES = 4;
const MIB = 2 ** 20;
/** A process with its libraries, caches and young garbage, before any model. Measured on Linux x64, Node 20 (docs/memory.md). */
const BASELINE_BYTES = {
  coordinator: 190 * MIB,
  learner: 190 * MIB,
  rollout: 178 * MIB,
  launcher: 120 * MIB,
};
/** What a reduction holds of one learner's gradient at most: WINDOW buckets of 1 MiB. */
const REDUCTION_BYTES = WINDOW * MIB;
/** Of a model whose matrices a session packs: 504 MiB for GPT-2 small's 325. */
const PACKED_SHARE = 1.5;
/** Buffers of a model's size that V8 has not collected yet: so many, up to what makes it collect. */
const GARBAGE_MODELS = 4;
const GARBAGE_BYTES = 48 * MIB;
/** Over gRPC a bucket is there once more, as the message it came in. */
const GRPC_COPIES = 2;
/** A token of the vocabulary in the coordinator's tokenizer threads. */
const TOKEN_BYTES = 1000;
/** Threads of a learner's optimizer beside its own: what one has before it works. */
const THREAD_BYTES = 25 * MIB;

/** Which processes of the run are on this machine. */
export type LocalProcesses = "all" | "coordinator";

/** @throws {TroupeError} DATA when `model.path` cannot be read; CONFIG when its lengths or adapters do not fit */
export async function estimateMemory(config: Config, local: LocalProcesses = "all"): Promise<MemoryEstimate> {
  const spec = await policySpec(config);
  const givenReward = await givenRewardSpec(config);
  const models: RunModels = { policy: spec, reward: givenReward ?? withHead(spec, "scalar") };
  const { cluster, stages } = config;
  // A ready reward model takes the place of its stage.
  const performed = stages.filter((stage) => stage !== "reward" || givenReward === null);
  const learner = heaviest(inTurn(performed.map((stage) => learnerIn(stage, models, config))));
  const launcher = [{ name: "node", bytes: BASELINE_BYTES.launcher }];
  const processes = [
    total("launcher", 1, "every stage", launcher),
    total(
      "coordinator",
      1,
      learner.stage,
      coordinatorParts(spec, learner.gradientBytes, config.cluster, local),
    ),
    total("learner", cluster.learners, learner.stage, placed(learner.parts, config)),
    ...(stages.includes("ppo")
      ? [total("rollout", cluster.rollouts, "ppo", placed(rolloutParts(models, config), config))]
      : []),
  ];
  return {
    parameters: layoutOf(spec).size,
    processes,
    totalBytes: processes.reduce((sum, { count, bytes }) => sum + count * bytes, 0),
  };
}

interface RunModels {
  /** With its language-model head. */
  readonly policy: ModelSpec;
  /** With its scalar head; the critic's too. */
  readonly reward: ModelSpec;
}

function total(
  role: ProcessEstimate["role"],
  count: number,
  stage: string,
  parts: readonly MemoryPart[],
): ProcessEstimate {
  const onDevice = sumOf(parts.filter(({ isOnDevice = false }) => isOnDevice));
  return { role, count, stage, parts, bytes: sumOf(parts) - onDevice, deviceBytes: onDevice };
}

const sumOf = (parts: readonly MemoryPart[]): number => parts.reduce((sum, { bytes }) => sum + bytes, 0);

/** What a worker computes with lies on its GPU where it has one; the rest passes through its process. */
const ON_DEVICE = new Set([
  "parameters",
  "moments",
  "arena",
  "programs",
  "sessions",
  "packed weights",
  "cache",
]);

const placed = (parts: readonly MemoryPart[], config: Config): MemoryPart[] =>
  usesDevice(config) ? parts.map((part) => ({ ...part, isOnDevice: ON_DEVICE.has(part.name) })) : [...parts];

interface LearnerEstimate {
  readonly stage: string;
  readonly parts: readonly MemoryPart[];
  readonly gradientBytes: number;
}

/** The pool that programs run in does not shrink: a stage has that of the largest run so far. */
function inTurn(stages: readonly LearnerEstimate[]): LearnerEstimate[] {
  let pool = 0;
  return stages.map((estimate) => {
    const parts = estimate.parts.map((part) => {
      if (part.name !== "programs") return part;
      pool = Math.max(pool, part.bytes);
      return { ...part, bytes: pool };
    });
    return { ...estimate, parts };
  });
}

const heaviest = (estimates: readonly LearnerEstimate[]): LearnerEstimate =>
  estimates.reduce((a, b) => (sumOf(b.parts) > sumOf(a.parts) ? b : a));

/**
 *   parameters   all of them; with adapters the frozen base once
 *   moments      2 per trained parameter, and the actor's average and the outer momentum if kept; where updates are not made
 *                in place, parameters and moments once more
 *   round        with averaged parameters: what is exchanged (parameters and, if averaged, moments) as it was at the
 *                round's start, and its average
 *   gradients    of all models for each node that is sent, which the total of all learners overwrites; of one model at a
 *                time for each other sum of the tree when its last leaf comes, and for micro-shards under way. And an arena
 *                where programs cannot write them into host memory
 *   programs     what forward and backward keep of each run under way; gradients are written where they stay
 *   sessions     what the compiled programs keep
 */
function learnerIn(
  stage: Config["stages"][number],
  { policy, reward: rewardModel }: RunModels,
  config: Config,
): LearnerEstimate {
  const { data, generation, sft, reward, ppo, cluster, model, engine } = config;
  const [language, scalar] = [policy, rewardModel].map((spec) =>
    model.lora === null ? spec : withLora(spec, model.lora),
  );
  const shardRows = (batchSize: number) => Math.max(1, Math.ceil(batchSize / cluster.microShards));
  const run = (spec: ModelSpec, rows: number, answerTokens: number, listsPrompts = false) => {
    const tokens = Math.min(data.maxPromptTokens + answerTokens, spec.contextTokens);
    return {
      spec,
      sequences: rows,
      run: largestRun(rows, tokens, listsPrompts ? 1 : answerTokens / tokens, engine),
    };
  };
  const readsAll = sft.lossOn === "all";
  const sampled = shardRows(ppo.minibatchSize);
  const [models, runs] = {
    sft: [[language], [run(language, shardRows(sft.batchSize), data.maxResponseTokens, readsAll)]] as const,
    reward: [[scalar], [run(scalar, 2 * shardRows(reward.batchSize), data.maxResponseTokens)]] as const,
    ppo: [
      [language, scalar],
      [
        run(language, sampled, generation.maxNewTokens),
        run(scalar, sampled, generation.maxNewTokens),
        ...(ppo.ptx === null ? [] : [run(language, sampled, data.maxResponseTokens, readsAll)]),
      ],
    ] as const,
  }[stage];
  const trainedEach = models.map((spec) => trainedLayout(spec).size);
  const trained = trainedEach.reduce((sum, size) => sum + size, 0);
  const frozen = sizeOf(models, (spec) => frozenLayout(spec)?.size ?? 0);
  const average = stage === "ppo" && ppo.ema !== null ? trainedLayout(language).size : 0;
  const shardsEach = Math.max(1, Math.ceil(cluster.microShards / Math.max(1, cluster.learners)));
  const underWay = Math.min(lanesOf(config), shardsEach * models.length);
  const isInHost = isInHostMemory(config);
  const averages = cluster.sync === "parameters";
  const exchanged = averages && cluster.averageMoments ? 3 * trained : trained;
  const largest = Math.max(...runs.map(({ spec, run: of }) => gradientElements(spec, of, engine.recompute)));
  return {
    stage,
    gradientBytes: FLOAT_BYTES * exchanged,
    parts: [
      { name: "node", bytes: BASELINE_BYTES.learner + (lanesOf(config) - 1) * THREAD_BYTES },
      { name: "parameters", bytes: FLOAT_BYTES * (trained + frozen) },
      {
        name: "moments",
        bytes:
          FLOAT_BYTES * (2 * trained + average + (averages ? trained : 0) + (isInHost ? 0 : 3 * trained)),
      },
      ...(averages ? [{ name: "round", bytes: FLOAT_BYTES * 2 * exchanged }] : []),
      { name: "gradients", bytes: FLOAT_BYTES * gradientsOf(trainedEach, shardsEach, config) },
      ...(isInHost ? [] : [{ name: "arena", bytes: FLOAT_BYTES * trained }]),
      { name: "programs", bytes: FLOAT_BYTES * underWay * largest },
      {
        name: "sessions",
        bytes: gradientSessionBytes(runs),
      },
      // What splitting took of every model stays on top, or is where a merged copy of it is made.
      ...(model.lora === null ? [] : [{ name: "merging", bytes: FLOAT_BYTES * sizeOf(models, wholeSize) }]),
    ],
  };
}

/**
 * Elements of the vectors that the gradients of one learner's micro-shards lie in (src/learner/shard-sums.ts).
 * @param trained elements of each model
 */
function gradientsOf(trained: readonly number[], shards: number, config: Config): number {
  const nodes = subtreesOf(0, shards - 1).length;
  const width = isInHostMemory(config) ? trained.length * lanesOf(config) : 1;
  const parts = Math.min(shards - nodes, Math.ceil(Math.log2(shards)) + Math.max(0, width - 2));
  return nodes * trained.reduce((sum, size) => sum + size, 0) + parts * Math.max(...trained);
}

/** On the CPU, through ONNX Runtime: state is updated where it lies. */
const isInHostMemory = ({ engine }: Config): boolean =>
  engineOf(engine) === "onnx" && engine.provider === "cpu";

/** libtensorflow without a GPU, and the reference engine, compute in the machine's memory. */
const usesDevice = ({ engine }: Config): boolean =>
  engine.provider !== "cpu" || (engineOf(engine) === "tensorflow" && hostFacts().hasCudaDevice);

/** Micro-shards or scoring passes that a worker computes side by side. */
const lanesOf = (config: Config): number => (isInHostMemory(config) ? (config.engine.threads ?? 1) : 1);

/**
 * ref and reward model as int8 stand there twice, as they were rounded and arranged for integer products, and in what
 * sessions keep of arranging them.
 */
function frozenModelBytes(spec: ModelSpec, config: Config, tokens: number): number {
  const { engine } = config;
  const layout = layoutOf(spec);
  if (engine.frozenWeights === "f32") return FLOAT_BYTES * layout.size;
  const form = frozenForm(spec);
  const held = Object.keys(form.matrices).reduce((sum, name) => sum + layout.byName.get(name)!.size, 0);
  const bytes = frozenBytes(layout, form);
  const matrices = bytes - FLOAT_BYTES * (layout.size - held);
  return bytes + matrices + int8SessionBytes(spec.head === "lm" ? "ref" : "reward", matrices, config, tokens);
}

function rolloutParts({ policy, reward }: RunModels, config: Config): MemoryPart[] {
  const { data, generation } = config;
  const { lora } = config.model;
  const tokens = Math.min(policy.contextTokens, data.maxPromptTokens + generation.maxNewTokens);
  const slots = Math.max(2, generation.slots);
  const models = [policy, reward];
  const adapted = lora?.onlyOptimizeLora === true ? models.map((spec) => withLora(spec, lora)) : null;
  const adapters = adapted === null ? 0 : sizeOf(adapted, (spec) => trainedLayout(spec).size);
  // Adapters sit on the weights of reference and reward model, where these are float32.
  const isBaseShared = adapted !== null && config.engine.frozenWeights === "f32";
  const judges = isBaseShared ? 0 : sizeOf(models, (spec) => frozenModelBytes(spec, config, tokens));
  const largest = Math.max(...models.map((spec) => passElements(spec, config, tokens, lanesOf(config))));
  return [
    { name: "node", bytes: BASELINE_BYTES.rollout },
    { name: "parameters", bytes: FLOAT_BYTES * (sizeOf(models, wholeSize) + adapters) + judges },
    // The actor's matrices once more, as its decode program keeps them, and part of the next version's.
    { name: "packed weights", bytes: PACKED_SHARE * FLOAT_BYTES * wholeSize(policy) },
    { name: "cache", bytes: FLOAT_BYTES * cacheLayout(policy, slots, tokens).size },
    { name: "programs", bytes: FLOAT_BYTES * (largest + decodeElements(policy, slots)) },
    { name: "sessions", bytes: passSessionBytes(policy, config, tokens) },
    // A new version is read whole before it replaces the old one.
    { name: "loading", bytes: FLOAT_BYTES * trainedLayout(adapted?.[0] ?? policy).size },
    { name: "garbage", bytes: Math.min(GARBAGE_BYTES, GARBAGE_MODELS * FLOAT_BYTES * wholeSize(policy)) },
  ];
}

/**
 * A learner may be so far ahead of the slowest, and sends nothing when it is alone or learners sum among themselves, as they
 * do by default where all of them are on this machine; weights pass through in chunks.
 */
function coordinatorParts(
  { vocabularySize }: ModelSpec,
  gradientBytes: number,
  { learners, allReduce, bulkChannel, bulkPort, sync }: Config["cluster"],
  local: LocalProcesses,
): MemoryPart[] {
  const isHere = local === "all";
  // Rounds of averaging go over gRPC.
  const hasBulk = bulkChannel === "on" || (bulkChannel === "auto" && (isHere || bulkPort > 0));
  const isBulk = hasBulk && sync === "gradients";
  const isSummedHere =
    learners > 1 && !(isBulk && (allReduce === "sharded" || (allReduce === "auto" && isHere)));
  const each = Math.min(gradientBytes, REDUCTION_BYTES) * (isBulk ? 1 : GRPC_COPIES);
  const gradients = isSummedHere ? each * learners : 0;
  return [
    { name: "node", bytes: BASELINE_BYTES.coordinator },
    { name: "tokenizer", bytes: TOKEN_BYTES * vocabularySize },
    { name: "gradients", bytes: gradients },
  ];
}

const sizeOf = (models: readonly ModelSpec[], size: (spec: ModelSpec) => number): number =>
  models.reduce((sum, spec) => sum + size(spec), 0);

const wholeSize = (spec: ModelSpec): number => layoutOf(spec).size;
