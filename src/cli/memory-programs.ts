/**
 * What the programs of a worker take while they run, in float32 elements, and what they keep. All sessions but decoding's
 * share one pool (src/engine/onnx/c-api.ts), so the largest of them counts, once for each that runs beside it.
 */
import type { Config } from "../config/schema.js";
import { roundTokens } from "../learner/packed-rows.js";
import { rowLength } from "../learner/packing.js";
import { MAX_SHAPES } from "../learner/run-shapes.js";
import type { ModelSpec } from "../models/model-spec.js";
import { PREFILL_ROWS, promptStep, scoringRows } from "../rollout/token-buckets.js";

/** Runs of other shapes leave holes: the pool grows to more than the largest of them. */
const POOL_SPREAD = 1.15;
/** Rows may be longer than the longest sequence needs, where that leaves less unused; attention grows with them. */
const ROW_STRETCH = 1.25;

/** What a session keeps beside the pool: its graph and kernels. Measured, see docs/memory.md. */
const GRADIENT_SESSION = { bytes: 2 * 2 ** 20, layerBytes: 0.5 * 2 ** 20 };
const FORWARD_SESSION = { bytes: 2 ** 20, layerBytes: 0.3 * 2 ** 20 };

/** What a session of an int8 model keeps of arranging its matrices, and besides. */
const INT8_KEPT_SHARE = 0.7;
const INT8_SESSION_BYTES = 6 * 2 ** 20;

/** A run of gradients. */
export interface GradientRun {
  readonly rows: number;
  /** Tokens of a row. */
  readonly tokens: number;
  /** Tokens that the loss reads. */
  readonly listed: number;
}

/**
 * The largest run of a micro-shard.
 * @param sequences of the micro-shard
 * @param tokens    that the longest has
 * @param answers   share of its tokens that the loss reads, at most
 */
export function largestRun(
  sequences: number,
  tokens: number,
  answers: number,
  { microBatchTokens }: Config["engine"],
): GradientRun {
  const length = rowLength(tokens);
  const rows = Math.max(1, Math.min(sequences, Math.floor(microBatchTokens / length)));
  const positions = rows * length;
  return { rows, tokens: length, listed: Math.min(positions, roundTokens(answers * positions, positions)) };
}

/** What forward and backward keep. */
export function gradientElements(
  spec: ModelSpec,
  run: GradientRun,
  recompute: Config["engine"]["recompute"],
) {
  const { hidden, intermediate, heads, layers } = spec;
  const positions = run.rows * run.tokens;
  const rowTokens = run.rows === 1 ? run.tokens : Math.min(positions, ROW_STRETCH * run.tokens);
  const scores = heads * positions * rowTokens;
  // Kept for the backward pass: residual stream, norms, q, k, v, attended and both sides of the MLP; the scores once,
  // and twice more in the layer being differentiated.
  const perLayer = positions * (9 * hidden + 2 * intermediate) + scores;
  const working = 2 * scores + positions * 4 * intermediate;
  const kept = recompute === "layers" ? layers * positions * hidden + perLayer : layers * perLayer;
  // Logits, their gradient and what is between; and the head's weight gradient before the embedding's is added to it.
  const head = spec.head === "lm" ? (3 * run.listed + hidden) * spec.vocabularySize : 0;
  return POOL_SPREAD * (kept + working + head);
}

const sessionBytes = ({ bytes, layerBytes }: typeof FORWARD_SESSION, { layers }: ModelSpec): number =>
  bytes + layers * layerBytes;

/** Programs of a stage's gradients: a micro-shard's first run overwrites, further ones add. */
export function gradientSessionBytes(
  runs: readonly { readonly spec: ModelSpec; readonly sequences: number; readonly run: GradientRun }[],
): number {
  return runs.reduce((sum, { spec, sequences, run }) => {
    const kinds = run.rows < sequences ? 2 : 1;
    return sum + kinds * MAX_SHAPES * sessionBytes(GRADIENT_SESSION, spec);
  }, 0);
}

/** The largest pass of reading prompts and scoring. @param lanes scoring passes side by side */
export function passElements(spec: ModelSpec, { data, generation }: Config, tokens: number, lanes: number) {
  const prompt = promptLength(data.maxPromptTokens, tokens);
  const prefill = layerElements(spec, PREFILL_ROWS, prompt) + logitElements(spec, PREFILL_ROWS);
  const scoring = scoringRows(tokens, Math.min(tokens, generation.maxNewTokens)).map(
    ({ rows, tokens: length, listed }) =>
      layerElements(spec, rows, length) + logitElements(spec, rows * Math.max(...listed)),
  );
  return POOL_SPREAD * Math.max(prefill, lanes * Math.max(...scoring));
}

/** Decoding keeps memory of its own. */
export const decodeElements = (spec: ModelSpec, slots: number): number =>
  layerElements(spec, slots, 1) + logitElements(spec, slots);

/** Programs that prompts and answers of every length ask for. */
export function passSessionBytes(spec: ModelSpec, { data, generation }: Config, tokens: number): number {
  const ofScoring = scoringRows(tokens, Math.min(tokens, generation.maxNewTokens)).reduce(
    (sum, { listed }) => sum + 2 * listed.length + 1,
    0,
  );
  const ofPrompts = Math.ceil(promptLength(data.maxPromptTokens, tokens) / promptStep(tokens));
  return (ofScoring + ofPrompts + 1) * sessionBytes(FORWARD_SESSION, spec);
}

/**
 * What sessions of an int8 model keep beside the arrangement that they share: each further one arranges the matrices
 * again, and most of that stays.
 */
export function int8SessionBytes(
  role: "ref" | "reward",
  matrixBytes: number,
  { generation }: Config,
  tokens: number,
): number {
  const shapes = scoringRows(tokens, Math.min(tokens, generation.maxNewTokens));
  const sessions =
    role === "reward" ? shapes.length : shapes.reduce((sum, { listed }) => sum + listed.length, 0);
  return INT8_KEPT_SHARE * (sessions - 1) * matrixBytes + INT8_SESSION_BYTES * sessions;
}

const promptLength = (maxPromptTokens: number, slotTokens: number): number => {
  const step = promptStep(slotTokens);
  return Math.min(slotTokens, Math.ceil(Math.min(maxPromptTokens, slotTokens) / step) * step);
};

/** One layer's values at a time. */
function layerElements({ hidden, intermediate, heads }: ModelSpec, rows: number, tokens: number): number {
  return rows * tokens * (6 * hidden + 2 * intermediate) + 2 * rows * heads * tokens ** 2;
}

/** Logits at so many positions, and what is made of them. */
const logitElements = (spec: ModelSpec, positions: number): number =>
  spec.head === "lm" ? 2 * positions * spec.vocabularySize : 0;
