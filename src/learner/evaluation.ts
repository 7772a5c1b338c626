/** Forward passes without gradients, row by row. */
import type { Arena, Engine } from "../engine/engine.js";
import type { ModelSpec } from "../models/model-spec.js";
import { mapAhead } from "../shared/map-ahead.js";
import { layPairs, layPpo, laySft, type TokenRun } from "./packed-rows.js";
import type { RunShape } from "./packing.js";
import { makeLogprobsProgram, makePairScoresProgram } from "./programs.js";
import { layOptions, type StageSettings } from "./shard-tasks.js";
import type { PpoRow, PreferencePair, SftRow, ShardRows } from "./shards.js";

export interface EvaluationContext {
  readonly engine: Engine;
  readonly modelOf: (role: string) => {
    readonly spec: ModelSpec;
    /** What a program reads the model from. */
    readonly weights: Readonly<Record<string, Arena>>;
  };
  readonly settings: StageSettings;
  readonly padId: number;
  readonly microBatchTokens: number;
  readonly runShapes: readonly RunShape[];
}

/**
 * Numbers per row, float64 `[rows]` by name:
 *
 *   sft     nll = −Σ log π(target), nats · tokens = target tokens        (perplexity = exp(Σ nll / Σ tokens))
 *   reward  chosen_score · rejected_score
 *   ppo     max_abs_log_ratio = max |log π_θ − log π_old| over counted tokens · tokens       (0 at step 0)
 *           logprobs `[Σ R]`, rows one after another: log π_θ of counted tokens, the given log π_old of others
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
  const runs = laySft(rows, layOptions(spec, context));
  for await (const [run, logprobs] of logprobsOf(runs, spec, weights, 1, context)) {
    run.sources.forEach(({ item }, n) => {
      nll[item] -= logprobs[n];
      tokens[item] += 1;
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
  const { settings, padId } = context;
  const endId = settings.stage === "reward" && settings.hyper.rewardLoss === "span" ? padId : null;
  const runs = layPairs(pairs, layOptions(spec, context), endId);
  const results = sideBySide(runs, context, async ({ shape, ids, starts, chosenAt, rejectedAt }) => {
    const executable = await context.engine.compile(makePairScoresProgram(spec, shape), { sideBySide: true });
    return executable.run(weights, { ids, starts, chosenAt, rejectedAt });
  });
  for await (const [{ items }, { chosen, rejected }] of results) {
    items.forEach((item, p) => {
      chosenScore[item] = chosen[p];
      rejectedScore[item] = rejected[p];
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
  const newLogprobs = rows.map((row) => Float64Array.from(row.logprobs));
  const { spec, weights } = context.modelOf("actor");
  const temperature = context.settings.stage === "ppo" ? context.settings.hyper.temperature : 1;
  const runs = layPpo(rows, layOptions(spec, context));
  for await (const [run, logprobs] of logprobsOf(runs, spec, weights, temperature, context)) {
    run.sources.forEach(({ item, index }, n) => {
      const difference = Math.abs(logprobs[n] - rows[item].logprobs[index]);
      maxAbsLogRatio[item] = Math.max(maxAbsLogRatio[item], difference);
      tokens[item] += 1;
      newLogprobs[item][index] = logprobs[n];
    });
  }
  const flat = Float64Array.from(newLogprobs.flatMap((row) => [...row]));
  return { max_abs_log_ratio: maxAbsLogRatio, tokens, logprobs: flat };
}

/** Every run, and what is found for its listed tokens. */
function logprobsOf(
  runs: readonly TokenRun[],
  spec: ModelSpec,
  weights: Readonly<Record<string, Arena>>,
  temperature: number,
  context: EvaluationContext,
): AsyncGenerator<[TokenRun, Float32Array]> {
  return sideBySide(runs, context, async ({ shape, ids, starts, at, labels }) => {
    const program = makeLogprobsProgram(spec, shape, temperature);
    const executable = await context.engine.compile(program, { sideBySide: true });
    const { logprobs } = await executable.run(weights, { ids, starts, at, labels });
    return logprobs as Float32Array;
  });
}

/** Every run and its result, in the order of the runs. */
const sideBySide = <Run, Result>(
  runs: readonly Run[],
  { engine }: EvaluationContext,
  work: (run: Run) => Promise<Result>,
): AsyncGenerator<[Run, Result]> =>
  mapAhead(runs, engine.lanes ?? 1, async (run): Promise<[Run, Result]> => [run, await work(run)]);
