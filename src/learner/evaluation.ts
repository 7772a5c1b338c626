/** Forward passes without gradients, row by row. */
import type { Arena, Engine } from "../engine/engine.js";
import type { ModelSpec } from "../models/model-spec.js";
import { makeLogprobsProgram, makeValuesProgram } from "./programs.js";
import type { StageSettings } from "./shard-tasks.js";
import {
  bucketLength,
  chunksOf,
  longestSequence,
  padPairs,
  padPpo,
  padSft,
  type PpoRow,
  type PreferencePair,
  type SftRow,
  type ShardRows,
} from "./shards.js";

export interface EvaluationContext {
  readonly engine: Engine;
  readonly modelOf: (role: string) => {
    readonly spec: ModelSpec;
    /** What a program reads the model from. */
    readonly weights: Readonly<Record<string, Arena>>;
  };
  readonly settings: StageSettings;
  readonly padId: number;
  readonly rowsPerRun: number;
}

/**
 * Numbers per row, float64 `[rows]` by name:
 *
 *   sft     nll = −Σ log π(target), nats · tokens = target tokens        (perplexity = exp(Σ nll / Σ tokens))
 *   reward  chosen_score · rejected_score
 *   ppo     max_abs_log_ratio = max |log π_θ − log π_old| over counted tokens · tokens       (0 at step 0)
 */
export async function evaluateRows(
  rows: ShardRows,
  context: EvaluationContext,
): Promise<Record<string, Float64Array>> {
  switch (rows.kind) {
    case "sft":
      return evaluateSft(rows.rows, context);
    case "reward":
      return evaluatePairs(rows.rows, context);
    case "ppo":
      return evaluatePpo(rows.rows, context);
  }
}

async function evaluateSft(
  rows: readonly SftRow[],
  context: EvaluationContext,
): Promise<Record<string, Float64Array>> {
  const nll = new Float64Array(rows.length);
  const tokens = new Float64Array(rows.length);
  const { spec, weights } = context.modelOf("model");
  const shape = {
    rows: context.rowsPerRun,
    length: bucketLength(longestSequence({ kind: "sft", rows }), spec.contextTokens),
  };
  for (const [c, chunk] of chunksOf(rows, shape.rows).entries()) {
    const { ids, mask } = padSft(chunk, shape, context.padId);
    const executable = await context.engine.compile(makeLogprobsProgram(spec, shape, 1));
    const { logprobs } = await executable.run(weights, { ids });
    forEachCounted(mask, shape.length - 1, (b, i) => {
      nll[c * shape.rows + b] -= logprobs[i];
      tokens[c * shape.rows + b] += 1;
    });
  }
  return { nll, tokens };
}

async function evaluatePairs(
  pairs: readonly PreferencePair[],
  context: EvaluationContext,
): Promise<Record<string, Float64Array>> {
  const chosenScore = new Float64Array(pairs.length);
  const rejectedScore = new Float64Array(pairs.length);
  const { spec, weights } = context.modelOf("model");
  const { settings, padId, rowsPerRun } = context;
  const endId = settings.stage === "reward" && settings.hyper.rewardLoss === "span" ? padId : null;
  const shape = {
    rows: rowsPerRun,
    length: bucketLength(longestSequence({ kind: "reward", rows: pairs }), spec.contextTokens),
  };
  for (const [c, chunk] of chunksOf(pairs, shape.rows).entries()) {
    const { ids, ends } = padPairs(chunk, shape, padId, endId);
    const executable = await context.engine.compile(
      makeValuesProgram(spec, { rows: 2 * shape.rows, length: shape.length }),
    );
    const { values } = await executable.run(weights, { ids });
    forEachCounted(ends, shape.length, (b, i) => {
      const scores = b < shape.rows ? chosenScore : rejectedScore;
      scores[c * shape.rows + (b % shape.rows)] = values[i];
    });
  }
  return { chosen_score: chosenScore, rejected_score: rejectedScore };
}

async function evaluatePpo(
  rows: readonly PpoRow[],
  context: EvaluationContext,
): Promise<Record<string, Float64Array>> {
  const maxAbsLogRatio = new Float64Array(rows.length);
  const tokens = new Float64Array(rows.length);
  const { spec, weights } = context.modelOf("actor");
  const temperature = context.settings.stage === "ppo" ? context.settings.hyper.temperature : 1;
  const shape = {
    rows: context.rowsPerRun,
    length: bucketLength(longestSequence({ kind: "ppo", rows }), spec.contextTokens),
  };
  for (const [c, chunk] of chunksOf(rows, shape.rows).entries()) {
    const { ids, mask, oldLogprobs } = padPpo(chunk, shape, context.padId);
    const executable = await context.engine.compile(makeLogprobsProgram(spec, shape, temperature));
    const { logprobs } = await executable.run(weights, { ids });
    forEachCounted(mask, shape.length - 1, (b, i) => {
      const row = c * shape.rows + b;
      maxAbsLogRatio[row] = Math.max(maxAbsLogRatio[row], Math.abs(logprobs[i] - oldLogprobs[i]));
      tokens[row] += 1;
    });
  }
  return { max_abs_log_ratio: maxAbsLogRatio, tokens };
}

/** Visits entries with mask 1 as (row, flat index). */
function forEachCounted(
  mask: Float32Array,
  width: number,
  visit: (row: number, index: number) => void,
): void {
  for (let i = 0; i < mask.length; i++) if (mask[i] === 1) visit(Math.floor(i / width), i);
}
