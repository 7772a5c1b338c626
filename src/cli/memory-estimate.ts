/**
 * How much memory each process of a run will need at its peak, from the config alone: nothing is loaded. The formulas
 * and how far they were from measured processes are in docs/memory.md.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Config } from "../config/schema.js";
import { rowLength } from "../learner/packing.js";
import { frozenBytes } from "../engine/frozen-weights.js";
import { frozenForm } from "../models/frozen.js";
import { cacheLayout } from "../models/cache-layout.js";
import { frozenLayout, trainedLayout, withLora } from "../models/lora.js";
import { freshGpt2Spec, layoutOf, parseModelConfig, withHead, type ModelSpec } from "../models/model-spec.js";
import { WINDOW } from "../reduce/reduction.js";
import { scoringRows } from "../rollout/token-buckets.js";
import { dataError } from "../shared/errors.js";

export interface MemoryPart {
  readonly name: string;
  readonly bytes: number;
}

export interface ProcessEstimate {
  readonly role: "coordinator" | "learner" | "rollout" | "launcher";
  /** How many of them the launcher starts. */
  readonly count: number;
  /** Stage in which one needs most. */
  readonly stage: string;
  /** Of one process; they add up to `bytes`. */
  readonly parts: readonly MemoryPart[];
  readonly bytes: number;
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
  coordinator: 165 * MIB,
  learner: 305 * MIB,
  rollout: 240 * MIB,
  launcher: 120 * MIB,
};
/** What a reduction holds of one learner's gradient at most: WINDOW buckets of 1 MiB. */
const REDUCTION_BYTES = WINDOW * MIB;
/** GPT-2's. */
const LARGE_VOCABULARY = 50_257;
/** Prompts of one prefill (src/rollout/generator.ts). */
const PREFILL_ROWS = 4;

/** @throws {TroupeError} DATA when `model.path` cannot be read; CONFIG when its lengths or adapters do not fit */
export async function estimateMemory(config: Config): Promise<MemoryEstimate> {
  const spec = config.model.path === null ? await freshSpec(config.model) : await specOf(config.model.path);
  const { cluster } = config;
  const learner = heaviest(config.stages.map((stage) => learnerIn(stage, spec, config)));
  const launcher = [{ name: "node", bytes: BASELINE_BYTES.launcher }];
  const processes = [
    total("launcher", 1, "every stage", launcher),
    total("coordinator", 1, learner.stage, coordinatorParts(learner.gradientBytes, config)),
    total("learner", cluster.learners, learner.stage, learner.parts),
    ...(config.stages.includes("ppo")
      ? [total("rollout", cluster.rollouts, "ppo", rolloutParts(spec, config))]
      : []),
  ];
  return {
    parameters: layoutOf(spec).size,
    processes,
    totalBytes: processes.reduce((sum, { count, bytes }) => sum + count * bytes, 0),
  };
}

function total(
  role: ProcessEstimate["role"],
  count: number,
  stage: string,
  parts: readonly MemoryPart[],
): ProcessEstimate {
  return { role, count, stage, parts, bytes: sumOf(parts) };
}

const sumOf = (parts: readonly MemoryPart[]): number => parts.reduce((sum, { bytes }) => sum + bytes, 0);

interface LearnerEstimate {
  readonly stage: string;
  readonly parts: readonly MemoryPart[];
  readonly gradientBytes: number;
}

const heaviest = (estimates: readonly LearnerEstimate[]): LearnerEstimate =>
  estimates.reduce((a, b) => (sumOf(b.parts) > sumOf(a.parts) ? b : a));

/**
 *   parameters   all of them; with adapters the frozen base once
 *   moments      2 per trained parameter, and the actor's average and the outer momentum if kept
 *   round        with averaged parameters: what is exchanged (parameters and, if averaged, moments) as it was at the
 *                round's start, and its average
 *   gradients    per trained parameter: those of micro-shards under way and the pending sums of the tree, the sum of all
 *                learners; and an arena where programs cannot write them into host memory
 *   programs     what forward and backward keep for each micro-shard under way; gradients are written where they stay
 */
function learnerIn(stage: Config["stages"][number], base: ModelSpec, config: Config): LearnerEstimate {
  const { data, generation, sft, reward, ppo, cluster, model, engine } = config;
  const adapted = model.lora === null ? base : withLora(base, model.lora);
  const language = adapted;
  const scalar = withHead(adapted, "scalar");
  const rowsOf = (batchSize: number) => Math.max(1, Math.ceil(batchSize / cluster.microShards));
  const trainingTokens = lengthOf(base, data.maxPromptTokens + data.maxResponseTokens);
  const sampledTokens = lengthOf(base, data.maxPromptTokens + generation.maxNewTokens);
  const [models, shardRows, tokens] = {
    sft: [[language], rowsOf(sft.batchSize), trainingTokens] as const,
    reward: [[scalar], 2 * rowsOf(reward.batchSize), trainingTokens] as const,
    ppo: [[language, scalar], rowsOf(ppo.minibatchSize), sampledTokens] as const,
  }[stage];
  const rows = Math.max(1, Math.min(shardRows, Math.floor(engine.microBatchTokens / tokens)));
  const trained = sizeOf(models, (spec) => trainedLayout(spec).size);
  const frozen = sizeOf(models, (spec) => frozenLayout(spec)?.size ?? 0);
  const average = stage === "ppo" && ppo.ema !== null ? trainedLayout(language).size : 0;
  const shardsEach = Math.max(1, Math.ceil(cluster.microShards / Math.max(1, cluster.learners)));
  const underWay = Math.min(lanesOf(config), shardsEach);
  const pendingSums = Math.max(Math.log2(shardsEach) / 2 + 1, underWay);
  const arenas = isInHostMemory(config) ? 0 : 1;
  const averages = cluster.sync === "parameters";
  const exchanged = averages && cluster.averageMoments ? 3 * trained : trained;
  const programs = underWay * sizeOf(models, (spec) => activations(spec, rows, tokens, engine.recompute));
  return {
    stage,
    gradientBytes: FLOAT_BYTES * exchanged,
    parts: [
      { name: "node", bytes: BASELINE_BYTES.learner },
      { name: "parameters", bytes: FLOAT_BYTES * (trained + frozen) },
      { name: "moments", bytes: FLOAT_BYTES * (2 * trained + average + (averages ? trained : 0)) },
      ...(averages ? [{ name: "round", bytes: FLOAT_BYTES * 2 * exchanged }] : []),
      { name: "gradients", bytes: FLOAT_BYTES * trained * (arenas + (averages ? 0 : 1) + pendingSums) },
      { name: "programs", bytes: FLOAT_BYTES * programs },
      // What splitting took of every model stays on top, and a merged copy of one comes when it is written.
      ...(frozen > 0
        ? [{ name: "merging", bytes: FLOAT_BYTES * (sizeOf(models, wholeSize) + layoutOf(scalar).size) }]
        : []),
    ],
  };
}

const isInHostMemory = ({ engine: { name, provider } }: Config): boolean =>
  (name === "auto" || name === "onnx") && provider === "cpu";

/** Micro-shards or scoring passes that a worker computes side by side. */
const lanesOf = (config: Config): number => (isInHostMemory(config) ? (config.engine.threads ?? 1) : 1);

/** ref and reward model as int8 stand there twice: as they were rounded, and arranged for integer products. */
function frozenModelBytes(spec: ModelSpec, { engine }: Config): number {
  const layout = layoutOf(spec);
  if (engine.frozenWeights === "f32") return FLOAT_BYTES * layout.size;
  const form = frozenForm(spec);
  const held = Object.keys(form.matrices).reduce((sum, name) => sum + layout.byName.get(name)!.size, 0);
  const bytes = frozenBytes(layout, form);
  return 2 * bytes - FLOAT_BYTES * (layout.size - held);
}

function rolloutParts(spec: ModelSpec, config: Config): MemoryPart[] {
  const { data, generation } = config;
  const tokens = Math.min(spec.contextTokens, data.maxPromptTokens + generation.maxNewTokens);
  const cache = cacheLayout(spec, Math.max(2, generation.slots), tokens).size;
  const scalar = withHead(spec, "scalar");
  const { lora } = config.model;
  const adapted = lora?.onlyOptimizeLora === true ? withLora(spec, lora) : null;
  const trainedBytes = FLOAT_BYTES * (layoutOf(spec).size + layoutOf(scalar).size);
  const adapterBytes =
    adapted === null
      ? 0
      : FLOAT_BYTES * (trainedLayout(adapted).size + trainedLayout(withHead(adapted, "scalar")).size);
  // Adapters sit on the weights of reference and reward model, where these are float32.
  const isBaseShared = adapted !== null && config.engine.frozenWeights === "f32";
  const frozenBytesOfBoth = isBaseShared
    ? 0
    : frozenModelBytes(spec, config) + frozenModelBytes(scalar, config);
  const passes =
    forwardOnly(spec, PREFILL_ROWS, data.maxPromptTokens) +
    lanesOf(config) * scoringPasses(spec, tokens, Math.min(tokens, generation.maxNewTokens)) +
    generation.slots * spec.vocabularySize * 2;
  return [
    { name: "node", bytes: BASELINE_BYTES.rollout },
    { name: "parameters", bytes: trainedBytes + adapterBytes + frozenBytesOfBoth },
    // The actor's matrices once more, as its decode program keeps them.
    { name: "packed weights", bytes: FLOAT_BYTES * layoutOf(spec).size },
    { name: "cache", bytes: FLOAT_BYTES * cache },
    { name: "programs", bytes: FLOAT_BYTES * passes },
    // A new version is read whole before it replaces the old one.
    { name: "loading", bytes: FLOAT_BYTES * trainedLayout(adapted ?? spec).size },
  ];
}

/** A learner may be so far ahead of the slowest; weights pass through in chunks. */
function coordinatorParts(gradientBytes: number, { cluster }: Config): MemoryPart[] {
  return [
    { name: "node", bytes: BASELINE_BYTES.coordinator },
    { name: "gradients", bytes: Math.min(gradientBytes, REDUCTION_BYTES) * Math.max(1, cluster.learners) },
  ];
}

const sizeOf = (models: readonly ModelSpec[], size: (spec: ModelSpec) => number): number =>
  models.reduce((sum, spec) => sum + size(spec), 0);

const wholeSize = (spec: ModelSpec): number => layoutOf(spec).size;

/** float32 elements that forward and backward keep for B rows of T tokens. */
function activations(
  spec: ModelSpec,
  rows: number,
  tokens: number,
  recompute: Config["engine"]["recompute"],
): number {
  const { hidden, intermediate, heads, layers } = spec;
  const positions = rows * tokens;
  // Kept for the backward pass: residual stream, norms, q, k, v, attended and both sides of the MLP; the scores once,
  // and twice more in the layer being differentiated.
  const perLayer = positions * (9 * hidden + 2 * intermediate) + rows * heads * tokens * tokens;
  const working = 2 * rows * heads * tokens * tokens + positions * 4 * intermediate;
  const kept = recompute === "layers" ? layers * positions * hidden + perLayer : layers * perLayer;
  return kept + working + (spec.head === "lm" ? 3 * positions * spec.vocabularySize : 0);
}

/** The same without a backward pass: one layer's values at a time. */
function forwardOnly(spec: ModelSpec, rows: number, tokens: number): number {
  const positions = rows * tokens;
  const logits = spec.head === "lm" ? 2 * positions * spec.vocabularySize : 0;
  return positions * (6 * spec.hidden + 2 * spec.intermediate) + 2 * rows * spec.heads * tokens ** 2 + logits;
}

/**
 * float32 elements of all scoring programs that sequences of up to `tokens`, `answer` of them answered, can ask for:
 * every one keeps the memory of its largest pass.
 */
function scoringPasses(spec: ModelSpec, tokens: number, answer: number): number {
  const scalar = withHead(spec, "scalar");
  return scoringRows(tokens, answer).reduce((sum, { rows, tokens: length, listed }) => {
    const [inner, scored] = [forwardOnly(scalar, rows, length), 2 * rows * spec.vocabularySize];
    // Log-probabilities and values at so many positions, and the reward model's at one.
    return sum + inner + listed.reduce((all, count) => all + 2 * inner + count * scored, 0);
  }, 0);
}

const lengthOf = (spec: ModelSpec, tokens: number): number => rowLength(Math.min(tokens, spec.contextTokens));

async function freshSpec({ fresh, tokenizer }: Config["model"]): Promise<ModelSpec> {
  const { layers, hidden, heads, contextTokens } = fresh;
  const vocabularySize =
    tokenizer.type === "path"
      ? await vocabularyOf(tokenizer.path)
      : tokenizer.type === "train"
        ? tokenizer.vocabularySize
        : LARGE_VOCABULARY;
  return freshGpt2Spec({
    head: "lm",
    layers,
    hidden,
    heads,
    contextTokens,
    vocabularySize,
    eosTokenId: 0,
    padTokenId: 1,
  });
}

/** Largest token id + 1, from tokenizer.json alone; GPT-2's size when that cannot be read: better too much than too little. */
async function vocabularyOf(folder: string): Promise<number> {
  try {
    const { model, added_tokens: added = [] } = JSON.parse(
      await readFile(join(folder, "tokenizer.json"), "utf8"),
    ) as TokenizerFile;
    // A Unigram vocabulary is a list, the others are maps to ids.
    const ids = Array.isArray(model.vocab)
      ? [model.vocab.length - 1]
      : Object.values(model.vocab as Readonly<Record<string, number>>);
    const largest = [...ids, ...added.map(({ id }) => id)].reduce((most, id) => Math.max(most, id), -1);
    return largest >= 0 ? largest + 1 : LARGE_VOCABULARY;
  } catch {
    return LARGE_VOCABULARY; // what is wrong with it, the run itself says
  }
}

/** The parts of tokenizer.json that are read here. */
interface TokenizerFile {
  readonly model: { readonly vocab: Readonly<Record<string, number>> | readonly unknown[] };
  readonly added_tokens?: readonly { readonly id: number }[];
}

async function specOf(path: string): Promise<ModelSpec> {
  const file = join(path, "config.json");
  const text = await readFile(file, "utf8").catch((cause: unknown) => {
    throw dataError(`${file}: cannot be read; expected a Hugging Face model directory`, { cause });
  });
  try {
    return parseModelConfig(JSON.parse(text), "lm");
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw dataError(`${file} is not valid JSON`, { cause });
  }
}
