/** Which programs a micro-shard takes, and their inputs. */
import type { HostArrays } from "../engine/engine.js";
import type { Recompute } from "../models/forward-pass.js";
import { tokenKeys } from "../models/lora-dropout.js";
import type { ModelSpec } from "../models/model-spec.js";
import type { Importance } from "../rl/policy-loss.js";
import { dataError } from "../shared/errors.js";
import {
  makeActorGradProgram,
  makeCriticGradProgram,
  makeLmGradProgram,
  makeRewardGradProgram,
  type GradientProgram,
  type RewardLossKind,
} from "./programs.js";
import type { RunShape } from "./packing.js";
import { layCosts } from "./run-shapes.js";
import { columnOf, layPairs, layPpo, laySft, type LayOptions } from "./packed-rows.js";
import { denominatorOf, type PpoRow, type SftRow, type ShardRows } from "./shards.js";

/** What the losses of a stage need to know beside their rows. */
export type StageSettings =
  | { readonly stage: "sft"; readonly hyper: object }
  | { readonly stage: "reward"; readonly hyper: { readonly rewardLoss: RewardLossKind } }
  | { readonly stage: "ppo"; readonly hyper: PpoHyper };

export interface PpoHyper {
  readonly cliprange: number;
  readonly cliprangeValue: number;
  /** Correction for stale experience; null = none. @default null */
  readonly importance?: Importance | null;
  readonly temperature: number;
  /** Weight of the language-model loss on ptx rows; 0 = off. */
  readonly ptxCoef: number;
  /** Decay of the actor's moving average per optimizer step; null = none. */
  readonly emaDecay: number | null;
  /** "microbatch-tokens": each micro-shard's loss is its own mean, averaged over shards (DeepSpeed-Chat). */
  readonly lossDenominator: "global-tokens" | "microbatch-tokens";
}

/** Counts over the whole minibatch, all learners together. */
export interface Denominators {
  /** Target tokens (sft), pairs (reward) or counted response tokens (ppo). */
  readonly main: number;
  /** Target tokens of the ptx rows; 0 without. */
  readonly ptx: number;
}

/** A gradient program to run for one model. */
export interface ShardTask {
  readonly role: string;
  readonly program: GradientProgram;
  readonly inputs: HostArrays;
  /** Name of one of its sums among the shard's statistics. */
  readonly statName: (output: string) => string;
}

export interface TaskContext {
  readonly settings: StageSettings;
  readonly specs: ReadonlyMap<string, ModelSpec>;
  readonly padId: number;
  /** Tokens of one program run; a larger micro-shard takes several, in order. */
  readonly microBatchTokens: number;
  /** Of the runs; none: each micro-shard has a shape that suits it. */
  readonly runShapes: readonly RunShape[];
  /** What gradients compute again instead of keeping it. @default "none" */
  readonly recompute?: Recompute;
  readonly denominators: Denominators;
  readonly shardCount: number;
  /** Dropout of adapters, in sft and reward; null = none. @default null */
  readonly dropout?: ShardDropout | null;
}

/** Where a micro-shard's dropout comes from. */
export interface ShardDropout {
  readonly rate: number;
  readonly seed: number;
  /** Names step and micro-shard: the same for whoever computes it. */
  readonly place: string;
}

/**
 * The runs whose gradients and sums add up to the micro-shard's.
 * @throws {TroupeError} DATA when the rows are of another stage
 */
export function tasksOf(rows: ShardRows, context: TaskContext): ShardTask[] {
  const { settings } = context;
  if (settings.stage === "sft" && rows.kind === "sft") {
    return lmTasks("model", rows.rows, 1, context.denominators.main, asIs, context);
  }
  if (settings.stage === "reward" && rows.kind === "reward") {
    return rewardTasks(rows.rows, settings.hyper.rewardLoss, context);
  }
  if (settings.stage === "ppo" && rows.kind === "ppo") {
    const { hyper } = settings;
    const ptx = hyper.ptxCoef > 0 ? (rows.ptx ?? []) : [];
    return [
      ...ppoTasks(rows.rows, hyper, ppoDenominator(rows, hyper, context), context),
      ...lmTasks("actor", ptx, hyper.ptxCoef, context.denominators.ptx, ptxStatName, context),
    ];
  }
  throw dataError(`a micro-shard of ${rows.kind} rows came in stage ${settings.stage}`);
}

/** A shard without counted tokens adds nothing; 1 keeps 0 / denominator defined. */
function ppoDenominator(rows: ShardRows, hyper: PpoHyper, { denominators, shardCount }: TaskContext): number {
  return hyper.lossDenominator === "global-tokens"
    ? denominators.main
    : Math.max(1, denominatorOf(rows)) * shardCount;
}

const asIs = (output: string): string => output;
/** loss → ptxLoss, so that it is not taken for the policy's */
const ptxStatName = (output: string): string => `ptx${output[0].toUpperCase()}${output.slice(1)}`;

function lmTasks(
  role: string,
  rows: readonly SftRow[],
  coef: number,
  denominator: number,
  statName: ShardTask["statName"],
  context: TaskContext,
): ShardTask[] {
  if (rows.length === 0) return [];
  const spec = specOf(role, context);
  const dropout = context.settings.stage === "sft" ? (context.dropout ?? null) : null;
  return laySft(rows, layOptions(spec, context)).map(({ shape, ids, starts, at, labels, mask }, run) => ({
    role,
    program: makeLmGradProgram(spec, shape, coef, context.recompute, dropout?.rate),
    statName,
    inputs: {
      ...{ ids, starts, at, labels, mask, denominator: scalar(denominator) },
      ...dropoutKeys(dropout, run, ids.length),
    },
  }));
}

function rewardTasks(
  rows: Extract<ShardRows, { kind: "reward" }>["rows"],
  kind: RewardLossKind,
  context: TaskContext,
): ShardTask[] {
  if (rows.length === 0) return [];
  const spec = specOf("model", context);
  const runs = layPairs(rows, layOptions(spec, context), kind === "span" ? context.padId : null);
  const { dropout = null } = context;
  return runs.map(({ shape, ids, starts, chosenAt, rejectedAt, pairMask, spanWeights }, run) => ({
    role: "model",
    program: makeRewardGradProgram(spec, shape, kind, context.recompute, dropout?.rate),
    statName: asIs,
    inputs: {
      ids,
      starts,
      chosenAt,
      rejectedAt,
      pairMask,
      denominator: scalar(context.denominators.main),
      ...(kind === "span" ? { spanWeights } : {}),
      ...dropoutKeys(dropout, run, ids.length),
    },
  }));
}

const dropoutKeys = (dropout: ShardDropout | null, run: number, tokens: number): HostArrays =>
  dropout === null ? {} : { dropoutKeys: tokenKeys(dropout.seed, `${dropout.place}/${run}`, tokens) };

function ppoTasks(
  rows: readonly PpoRow[],
  hyper: PpoHyper,
  denominator: number,
  context: TaskContext,
): ShardTask[] {
  if (rows.length === 0) return [];
  const actor = specOf("actor", context);
  const critic = specOf("critic", context);
  const ofActor = layPpo(rows, layOptions(actor, context)).map((run) => {
    const { shape, ids, starts, at, labels, mask } = run;
    const oldLogprobs = columnOf(run, (item) => rows[item].logprobs);
    const advantages = columnOf(run, (item) => rows[item].advantages);
    const inputs = {
      ids,
      starts,
      at,
      labels,
      mask,
      oldLogprobs,
      advantages,
      denominator: scalar(denominator),
    };
    const proximalLogprobs = columnOf(run, (item) => rows[item].proximalLogprobs ?? rows[item].logprobs);
    return {
      role: "actor",
      program: makeActorGradProgram(actor, shape, hyper, context.recompute),
      statName: asIs,
      inputs: hyper.importance ? { ...inputs, proximalLogprobs } : inputs,
    };
  });
  const ofCritic = layPpo(rows, layOptions(critic, context)).map((run) => {
    const { shape, ids, starts, at, mask } = run;
    const oldValues = columnOf(run, (item) => rows[item].values);
    const returns = columnOf(run, (item) => rows[item].returns);
    return {
      role: "critic",
      program: makeCriticGradProgram(critic, shape, hyper, context.recompute),
      statName: asIs,
      inputs: { ids, starts, at, mask, oldValues, returns, denominator: scalar(denominator) },
    };
  });
  return [...ofActor, ...ofCritic];
}

export const layOptions = (
  spec: ModelSpec,
  { padId, microBatchTokens, runShapes }: Pick<TaskContext, "padId" | "microBatchTokens" | "runShapes">,
): LayOptions => ({
  ...layCosts(spec),
  contextTokens: spec.contextTokens,
  padId,
  budgetTokens: microBatchTokens,
  shapes: runShapes,
});

function specOf(role: string, { specs, settings }: TaskContext): ModelSpec {
  const spec = specs.get(role);
  if (spec === undefined)
    throw dataError(
      `stage ${settings.stage} trains a model in role ${role}; got ${[...specs.keys()].join(", ") || "none"}`,
    );
  return spec;
}

function scalar(denominator: number): Float32Array {
  if (!(denominator > 0))
    throw dataError(
      `the loss denominator must be above 0, got ${denominator}: the minibatch counts no token`,
    );
  return Float32Array.of(denominator);
}
