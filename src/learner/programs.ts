/**
 * The programs a learner runs. A gradient program adds the gradient of its loss to arena `grads` and returns sums over
 * the batch; sums of shards, the loss included, add up to those of the minibatch. An evaluation program returns numbers
 * per row or token and changes nothing.
 *
 * Their rows hold several sequences end to end, and losses run over lists of tokens: ./packed-rows names the inputs.
 *
 * `params` and `grads` hold what is trained (`trainedLayout`), `frozen` the base of a model with adapters.
 */
import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import type { ArenaUse, Program, ProgramResult, Tensors, TensorSpec } from "../engine/engine.js";
import { valueAndGradients } from "../engine/gradients.js";
import { listedLogprobs, listedValues, specKey } from "../models/forward.js";
import type { Recompute } from "../models/forward-pass.js";
import { keyShape, type AdapterDropout } from "../models/lora-dropout.js";
import { frozenLayout, trainedLayout } from "../models/lora.js";
import type { ModelSpec } from "../models/model-spec.js";
import { lmLoss } from "../rl/lm-loss.js";
import { policyLoss, type Importance, type PolicyLossInput } from "../rl/policy-loss.js";
import { endScoreLoss, rewardSums, spanLoss } from "../rl/reward-loss.js";
import { valueLoss } from "../rl/value-loss.js";
import type { PairShape, TokenShape } from "./packed-rows.js";

const f32 = (...shape: number[]): TensorSpec => ({ shape, dtype: "float32" });
const i32 = (...shape: number[]): TensorSpec => ({ shape, dtype: "int32" });

/** Cross-entropy on listed tokens: sft, and ptx with its coefficient. */
export function makeLmGradProgram(
  spec: ModelSpec,
  shape: TokenShape,
  coef: number,
  recompute: Recompute = "none",
  dropoutRate = 0,
): GradientProgram {
  return gradProgram({
    recompute,
    key: `lm-grad ${specKey(spec)} ${nameOf(shape)} coef${coef}${dropoutName(dropoutRate)}`,
    spec,
    inputs: {
      ...languageInputs(shape),
      mask: f32(shape.tokens),
      denominator: f32(),
      ...dropoutInputs(shape.rows * shape.length, dropoutRate),
    },
    loss: (params, { mask, denominator, dropoutKeys, ...inputs }) => {
      const dropout = dropoutOf(dropoutRate, dropoutKeys);
      const logprobs = logprobsOf(spec, params, inputs, { temperature: 1, recompute, dropout });
      const { loss, sums } = lmLoss({ logprobs, mask, denominator }, coef);
      return { loss, aux: { loss, ...sums } };
    },
  });
}

export type RewardLossKind = "end-score" | "span";

/** Bradley–Terry on pairs: R rows of chosen answers above R rows of rejected ones. */
export function makeRewardGradProgram(
  spec: ModelSpec,
  shape: PairShape,
  kind: RewardLossKind,
  recompute: Recompute = "none",
  dropoutRate = 0,
): GradientProgram {
  const { rows, length, pairs } = shape;
  return gradProgram({
    recompute,
    key: `reward-grad ${kind} ${specKey(spec)} ${nameOf(shape)}${dropoutName(dropoutRate)}`,
    spec,
    inputs: {
      ...gridInputs(2 * rows, length),
      chosenAt: i32(pairs),
      rejectedAt: i32(pairs),
      pairMask: f32(pairs),
      denominator: f32(),
      ...(kind === "span" ? { spanWeights: f32(rows, length) } : {}),
      ...dropoutInputs(2 * rows * length, dropoutRate),
    },
    loss: (params, inputs) => {
      const { ids, starts, chosenAt, rejectedAt, pairMask, spanWeights, denominator, dropoutKeys } = inputs;
      const dropout = dropoutOf(dropoutRate, dropoutKeys);
      const ends = tf.concat([chosenAt, rejectedAt]);
      const everywhere = tf.range(0, 2 * rows * length, 1, "int32");
      const at = kind === "span" ? everywhere : ends;
      const values = listedValues(spec, params, { ids, starts, recompute, dropout }, at);
      const scores = kind === "span" ? (tf.gather(values, ends as tf.Tensor1D) as Tensor) : values;
      const [chosenScores, rejectedScores] = tf.split(scores, 2);
      if (kind === "end-score") {
        const { loss, sums } = endScoreLoss({ chosenScores, rejectedScores, mask: pairMask, denominator });
        return { loss, aux: { loss, ...sums } };
      }
      const [chosenRewards, rejectedRewards] = tf.split(tf.reshape(values, [2 * rows, length]), 2);
      const loss = spanLoss({ chosenRewards, rejectedRewards, spanWeights, denominator });
      return { loss, aux: { loss, ...rewardSums(chosenScores, rejectedScores, pairMask) } };
    },
  });
}

export interface ActorOptions {
  readonly cliprange: number;
  /** Correction for stale experience; null = none. @default null */
  readonly importance?: Importance | null;
  /** Logits are divided by it in every log-prob: the same as in sampling. */
  readonly temperature: number;
}

/** PPO's clipped surrogate on the policy. */
export function makeActorGradProgram(
  spec: ModelSpec,
  shape: TokenShape,
  options: ActorOptions,
  recompute: Recompute = "none",
): GradientProgram {
  const column = f32(shape.tokens);
  const { cliprange, temperature, importance } = options;
  const correction = importance ? ` ${importance.kind}${importance.cap}` : "";
  return gradProgram({
    recompute,
    key: `actor-grad ${specKey(spec)} ${nameOf(shape)} clip${cliprange} temp${temperature}${correction}`,
    spec,
    inputs: {
      ...languageInputs(shape),
      mask: column,
      oldLogprobs: column,
      ...(importance ? { proximalLogprobs: column } : {}),
      advantages: column,
      denominator: f32(),
    },
    loss: (params, { ids, starts, at, labels, ...rest }) => {
      const logprobs = logprobsOf(spec, params, { ids, starts, at, labels }, { temperature, recompute });
      const { loss, sums } = policyLoss(
        { ...(rest as unknown as Omit<PolicyLossInput, "logprobs">), logprobs },
        options,
      );
      return { loss, aux: { policyLoss: loss, ...sums } };
    },
  });
}

/** Clipped value regression on the critic. */
export function makeCriticGradProgram(
  spec: ModelSpec,
  shape: TokenShape,
  options: { readonly cliprangeValue: number },
  recompute: Recompute = "none",
): GradientProgram {
  const column = f32(shape.tokens);
  return gradProgram({
    recompute,
    key: `critic-grad ${specKey(spec)} ${nameOf(shape)} clip${options.cliprangeValue}`,
    spec,
    inputs: {
      ...gridInputs(shape.rows, shape.length),
      at: i32(shape.tokens),
      mask: column,
      oldValues: column,
      returns: column,
      denominator: f32(),
    },
    loss: (params, { ids, starts, at, mask, oldValues, returns, denominator }) => {
      const values = listedValues(spec, params, { ids, starts, recompute }, at);
      const { loss, sums } = valueLoss({ values, oldValues, returns, mask, denominator }, options);
      return { loss, aux: { valueLoss: loss, ...sums } };
    },
  });
}

/** outputs: logprobs `[N]` */
export function makeLogprobsProgram(spec: ModelSpec, shape: TokenShape, temperature: number): Program {
  return {
    key: `logprobs ${specKey(spec)} ${nameOf(shape)} temp${temperature}`,
    arenas: weightArenas(spec),
    inputs: languageInputs(shape),
    body: ({ params, frozen }, inputs) => ({
      outputs: { logprobs: logprobsOf(spec, { ...frozen, ...params }, inputs, { temperature }) },
    }),
  };
}

/** outputs: chosen `[P]`, rejected `[P]`, the scores of pairs */
export function makePairScoresProgram(spec: ModelSpec, shape: PairShape): Program {
  const { rows, length, pairs } = shape;
  return {
    key: `pair-scores ${specKey(spec)} ${nameOf(shape)}`,
    arenas: weightArenas(spec),
    inputs: { ...gridInputs(2 * rows, length), chosenAt: i32(pairs), rejectedAt: i32(pairs) },
    body: ({ params, frozen }, { ids, starts, chosenAt, rejectedAt }) => {
      const at = tf.concat([chosenAt, rejectedAt]);
      const scores = listedValues(spec, { ...frozen, ...params }, { ids, starts }, at);
      const [chosen, rejected] = tf.split(scores, 2);
      return { outputs: { chosen, rejected } };
    },
  };
}

const nameOf = ({ rows, length, ...listed }: TokenShape | PairShape): string =>
  `R${rows} L${length} N${Object.values(listed).join()}`;

const gridInputs = (rows: number, length: number) => ({ ids: i32(rows, length), starts: i32(rows, length) });

const languageInputs = ({ rows, length, tokens }: TokenShape) => ({
  ...gridInputs(rows, length),
  at: i32(tokens),
  labels: i32(tokens),
});

const dropoutName = (rate: number): string => (rate === 0 ? "" : ` dropout${rate}`);

/** Keys of the tokens, where adapters drop some of their inputs. */
const dropoutInputs = (tokens: number, rate: number): Record<string, TensorSpec> =>
  rate === 0 ? {} : { dropoutKeys: f32(...keyShape(tokens)) };

const dropoutOf = (rate: number, keys: Tensor): AdapterDropout | null => (rate === 0 ? null : { rate, keys });

/** `[N]` */
function logprobsOf(
  spec: ModelSpec,
  params: Tensors,
  { ids, starts, at, labels }: Tensors,
  options: {
    readonly temperature: number;
    readonly recompute?: Recompute;
    readonly dropout?: AdapterDropout | null;
  },
): Tensor {
  const { temperature, recompute, dropout } = options;
  return listedLogprobs(spec, params, { ids, starts, recompute, dropout }, { at, labels, temperature });
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
  /** "layers": the same gradient from less memory, for about one more forward pass. */
  readonly recompute: Recompute;
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

function gradProgram({ key: name, spec, inputs, loss, recompute }: GradProgram): GradientProgram {
  const key = recompute === "none" ? name : `${name} recompute`;
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
