import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import type { ArenaUse, Program, TensorSpec } from "../engine/engine.js";
import type { Layout } from "../engine/layout.js";
import { smallLinear } from "../engine/ops.js";
import { decoderOf } from "../models/decoders.js";
import { decodePass, prefillPass } from "../models/forward-pass.js";
import { headWeight, hiddenStatesAt, specKey } from "../models/forward.js";
import { withAdapters } from "../models/lora-pass.js";
import type { ModelSpec } from "../models/model-spec.js";
import { SUM_BLOCK } from "./logit-row.js";

/** Shapes that a generator's programs are compiled for. */
export interface GenerationShape {
  readonly spec: ModelSpec;
  /** Of what is loaded anew with a version: everything, or the adapters alone. */
  readonly params: Layout;
  /** Of the base under adapters; null without. */
  readonly base: Layout | null;
  readonly cache: Layout;
  /** C, sequences decoded together. */
  readonly slots: number;
  /** S, tokens a slot can hold. */
  readonly slotTokens: number;
}

/**
 * Arenas of the weights. Only a base is packed for decoding where there is one: it stays as it is while versions of the
 * adapters come and go, which are thin enough to be read where they lie.
 */
function weightArenas(
  { params, base }: GenerationShape,
  access: "read" | "frozen",
): Readonly<Record<string, ArenaUse>> {
  return base === null
    ? { params: { layout: params, access } }
    : { params: { layout: params, access: "read" }, base: { layout: base, access } };
}

/** Divides the logits. */
const INVERSE_TEMPERATURE: TensorSpec = { shape: [1], dtype: "float32" };

/**
 * Logits and what a draw from their softmax needs to read only a part of them (see `LogitRow`).
 *
 *   highest_b = max_v logits_bv        sums_bj = Σ_{v in block j} exp((logits_bv − highest_b) · inverseTemperature)
 */
function drawable(logits: Tensor, inverseTemperature: Tensor): Record<string, Tensor> {
  const [rows, vocabulary] = logits.shape as [number, number];
  const highest = tf.max(logits, 1, true);
  const weights = tf.exp(tf.mul(tf.sub(logits, highest), inverseTemperature));
  const blocks = Math.ceil(vocabulary / SUM_BLOCK);
  const padding = blocks * SUM_BLOCK - vocabulary;
  const padded =
    padding === 0
      ? weights
      : tf.pad(weights, [
          [0, 0],
          [0, padding],
        ]);
  const sums = tf.sum(tf.reshape(padded, [rows, blocks, SUM_BLOCK]), 2);
  return { logits, highest: tf.reshape(highest, [rows]), sums };
}

/**
 * Reads prompts into cache slots and returns the logits that predict each one's first response token.
 *
 * Inputs: ids int32 `[rows, tokens]`; slots int32 `[rows]`; last int32 `[rows]`, flat index of each prompt's last token;
 * inverseTemperature float32 `[1]`.
 * Outputs: those of `drawable` for `rows` rows.
 */
export function prefillProgram(shape: GenerationShape, rows: number, tokens: number): Program {
  const { spec } = shape;
  return {
    key: `prefill ${specKey(spec)} C${shape.slots} S${shape.slotTokens} B${rows} T${tokens}`,
    arenas: {
      ...weightArenas(shape, "read"),
      cache: { layout: shape.cache, access: "update" },
    },
    inputs: {
      ids: { shape: [rows, tokens], dtype: "int32" },
      slots: { shape: [rows], dtype: "int32" },
      last: { shape: [rows], dtype: "int32" },
      inverseTemperature: INVERSE_TEMPERATURE,
    },
    body: ({ params: versioned, base, cache }, { ids, slots, last, inverseTemperature }) => {
      const params = { ...base, ...versioned };
      const pass = prefillPass(ids, slots, cache);
      const hidden = hiddenStatesAt(spec, params, withAdapters(pass, spec, params), last);
      const logits = smallLinear(hidden, headWeight(spec, params), null, { weightIsOutIn: true });
      return { outputs: drawable(logits, inverseTemperature), updates: { cache: pass.updates } };
    },
  };
}

/**
 * One token of every slot.
 *
 * Inputs: ids int32 `[C]`, the newest token of each slot; lengths int32 `[C]`, tokens its cache holds already;
 * inverseTemperature float32 `[1]`.
 * Outputs: those of `drawable` for C rows, predicting the token after `ids`.
 */
export function decodeProgram(shape: GenerationShape): Program {
  const { spec, slots } = shape;
  return {
    key: `decode ${specKey(spec)} C${slots} S${shape.slotTokens}`,
    arenas: {
      ...weightArenas(shape, "frozen"),
      cache: { layout: shape.cache, access: "update" },
    },
    inputs: {
      ids: { shape: [slots], dtype: "int32" },
      lengths: { shape: [slots], dtype: "int32" },
      inverseTemperature: INVERSE_TEMPERATURE,
    },
    body: ({ params: versioned, base, cache }, { ids, lengths, inverseTemperature }) => {
      const params = { ...base, ...versioned };
      const pass = decodePass(ids, lengths, cache);
      const hidden = decoderOf(spec)(spec, params, withAdapters(pass, spec, params));
      const logits = smallLinear(hidden, headWeight(spec, params), null, { weightIsOutIn: true });
      return { outputs: drawable(logits, inverseTemperature), updates: { cache: pass.updates } };
    },
  };
}
