/**
 * The programs a learner runs. A gradient program adds the gradient of its loss to arena `grads` and returns sums over
 * the batch; sums of shards, the loss included, add up to those of the minibatch. An evaluation program returns numbers
 * per row or token and changes nothing.
 *
 * Index t of a `[B, T−1]` tensor is about token t + 1 (see ./shards): `responseLogprobs` and, without the last
 * position, `tokenValues` are aligned so.
 *
 * `params` and `grads` hold what is trained (`trainedLayout`), `frozen` the base of a model with adapters.
 */
import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import type { ArenaUse, Program, ProgramResult, Tensors, TensorSpec } from "../engine/engine.js";
import { valueAndGradients } from "../engine/gradients.js";
import { responseLogprobs, specKey, tokenValues } from "../models/forward.js";
import { frozenLayout, trainedLayout } from "../models/lora.js";
import type { ModelSpec } from "../models/model-spec.js";
import { lmLoss } from "../rl/lm-loss.js";
import { policyLoss } from "../rl/policy-loss.js";
import { endScoreLoss, rewardSums, spanLoss } from "../rl/reward-loss.js";
import { valueLoss } from "../rl/value-loss.js";
import type { BatchShape } from "./shards.js";

const f32 = (...shape: number[]): TensorSpec => ({ shape, dtype: "float32" });
const i32 = (...shape: number[]): TensorSpec => ({ shape, dtype: "int32" });

/** Cross-entropy on target tokens: sft, and ptx with its coefficient. */
export function makeLmGradProgram(spec: ModelSpec, shape: BatchShape, coef: number): GradientProgram {
  const { rows, length } = shape;
  return gradProgram({
    key: `lm-grad ${specKey(spec)} B${rows} T${length} coef${coef}`,
    spec,
    inputs: { ids: i32(rows, length), mask: f32(rows, length - 1), denominator: f32() },
    loss: (params, { ids, mask, denominator }) => {
      const { logprobs } = responseLogprobs(spec, params, ids, { temperature: 1 });
      const { loss, sums } = lmLoss({ logprobs, mask, denominator }, coef);
      return { loss, aux: { loss, ...sums } };
    },
  });
}

export type RewardLossKind = "end-score" | "span";

/** Bradley–Terry on pairs stacked as 2B rows, chosen first. */
export function makeRewardGradProgram(
  spec: ModelSpec,
  shape: BatchShape,
  kind: RewardLossKind,
): GradientProgram {
  const { rows, length } = shape;
  return gradProgram({
    key: `reward-grad ${kind} ${specKey(spec)} B${rows} T${length}`,
    spec,
    inputs: {
      ids: i32(2 * rows, length),
      ends: f32(2 * rows, length),
      pairMask: f32(rows),
      denominator: f32(),
      ...(kind === "span" ? { spanWeights: f32(rows, length) } : {}),
    },
    loss: (params, { ids, ends, pairMask, spanWeights, denominator }) => {
      const rewards = tokenValues(spec, params, ids);
      const [chosenScores, rejectedScores] = tf.split(tf.sum(tf.mul(rewards, ends), 1), 2);
      if (kind === "end-score") {
        const { loss, sums } = endScoreLoss({ chosenScores, rejectedScores, mask: pairMask, denominator });
        return { loss, aux: { loss, ...sums } };
      }
      const [chosenRewards, rejectedRewards] = tf.split(rewards, 2);
      const loss = spanLoss({ chosenRewards, rejectedRewards, spanWeights, denominator });
      return { loss, aux: { loss, ...rewardSums(chosenScores, rejectedScores, pairMask) } };
    },
  });
}

export interface ActorOptions {
  readonly cliprange: number;
  /** Logits are divided by it in every log-prob: the same as in sampling. */
  readonly temperature: number;
}

/**
 * PPO's clipped surrogate on the policy.
 * @param from index below which the mask is 0 in every row: prompts need no language-model head. @default 0
 */
export function makeActorGradProgram(
  spec: ModelSpec,
  shape: BatchShape,
  options: ActorOptions,
  from = 0,
): GradientProgram {
  const { rows, length } = shape;
  const column = f32(rows, length - 1);
  return gradProgram({
    key: `actor-grad ${specKey(spec)} B${rows} T${length} from${from} clip${options.cliprange} temp${options.temperature}`,
    spec,
    inputs: {
      ids: i32(rows, length),
      mask: column,
      oldLogprobs: column,
      advantages: column,
      denominator: f32(),
    },
    loss: (params, { ids, mask, oldLogprobs, advantages, denominator }) => {
      const { temperature } = options;
      const { logprobs } = responseLogprobs(spec, params, ids, { temperature, from });
      const counted = (x: Tensor) => tf.slice(x, [0, from], [rows, length - 1 - from]);
      const { loss, sums } = policyLoss(
        {
          logprobs,
          oldLogprobs: counted(oldLogprobs),
          advantages: counted(advantages),
          mask: counted(mask),
          denominator,
        },
        options,
      );
      return { loss, aux: { policyLoss: loss, ...sums } };
    },
  });
}

/** Clipped value regression on the critic. */
export function makeCriticGradProgram(
  spec: ModelSpec,
  shape: BatchShape,
  options: { readonly cliprangeValue: number },
): GradientProgram {
  const { rows, length } = shape;
  const column = f32(rows, length - 1);
  return gradProgram({
    key: `critic-grad ${specKey(spec)} B${rows} T${length} clip${options.cliprangeValue}`,
    spec,
    inputs: { ids: i32(rows, length), mask: column, oldValues: column, returns: column, denominator: f32() },
    loss: (params, { ids, mask, oldValues, returns, denominator }) => {
      const values = tf.slice(tokenValues(spec, params, ids), [0, 0], [rows, length - 1]);
      const { loss, sums } = valueLoss({ values, oldValues, returns, mask, denominator }, options);
      return { loss, aux: { valueLoss: loss, ...sums } };
    },
  });
}

/** outputs: logprobs `[B, T−1]` */
export function makeLogprobsProgram(spec: ModelSpec, shape: BatchShape, temperature: number): Program {
  const { rows, length } = shape;
  return {
    key: `logprobs ${specKey(spec)} B${rows} T${length} temp${temperature}`,
    arenas: weightArenas(spec),
    inputs: { ids: i32(rows, length) },
    body: ({ params, frozen }, { ids }) => ({
      outputs: { logprobs: responseLogprobs(spec, { ...frozen, ...params }, ids, { temperature }).logprobs },
    }),
  };
}

/** outputs: values `[B, T]` */
export function makeValuesProgram(spec: ModelSpec, shape: BatchShape): Program {
  const { rows, length } = shape;
  return {
    key: `values ${specKey(spec)} B${rows} T${length}`,
    arenas: weightArenas(spec),
    inputs: { ids: i32(rows, length) },
    body: ({ params, frozen }, { ids }) => ({
      outputs: { values: tokenValues(spec, { ...frozen, ...params }, ids) },
    }),
  };
}

/** ema ← decay·ema + (1 − decay)·params */
export function makeEmaProgram(spec: ModelSpec, decay: number): Program {
  const layout = trainedLayout(spec);
  return {
    key: `ema ${specKey(spec)} decay${decay}`,
    arenas: { params: { layout, access: "read" }, ema: { layout, access: "update" } },
    inputs: {},
    body: ({ params, ema }) => ({
      outputs: {},
      updates: {
        ema: mapTensors(ema, (old, name) => tf.add(tf.mul(old, decay), tf.mul(params[name], 1 - decay))),
      },
    }),
  };
}

interface GradProgram {
  readonly key: string;
  readonly spec: ModelSpec;
  readonly inputs: Readonly<Record<string, TensorSpec>>;
  readonly loss: (params: Tensors, inputs: Tensors) => { loss: Tensor; aux: Tensors };
}

/** Adds its gradient to arena `grads`. */
export interface GradientProgram extends Program {
  /** The same, but its gradient replaces what `grads` held. */
  readonly overwriting: Program;
}

function gradProgram({ key, spec, inputs, loss }: GradProgram): GradientProgram {
  const program = (programKey: string, adds: boolean): Program => ({
    key: programKey,
    arenas: { ...weightArenas(spec), grads: { layout: trainedLayout(spec), access: "update" } },
    inputs,
    body: ({ params, frozen, grads }, tensors): ProgramResult => {
      const result = valueAndGradients(params, (current) => loss({ ...frozen, ...current }, tensors));
      return {
        outputs: result.aux,
        updates: {
          grads: adds ? mapTensors(grads, (sum, name) => tf.add(sum, result.grads[name])) : result.grads,
        },
      };
    },
  });
  return { ...program(key, true), overwriting: program(`${key} overwriting`, false) };
}

function weightArenas(spec: ModelSpec): Record<string, ArenaUse> {
  const params: ArenaUse = { layout: trainedLayout(spec), access: "read" };
  const frozen = frozenLayout(spec);
  return frozen === null ? { params } : { params, frozen: { layout: frozen, access: "read" } };
}

function mapTensors(tensors: Tensors, map: (tensor: Tensor, name: string) => Tensor): Tensors {
  return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, map(tensor, name)]));
}
