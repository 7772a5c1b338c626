import type { Program } from "../engine/engine.js";
import type { Layout } from "../engine/layout.js";
import { embedding, smallLinear } from "../engine/ops.js";
import { familyOf } from "../models/families.js";
import { decodePass, prefillPass } from "../models/forward-pass.js";
import { headWeight, specKey } from "../models/forward.js";
import type { ModelSpec } from "../models/model-spec.js";

/** Shapes that a generator's programs are compiled for. */
export interface GenerationShape {
  readonly spec: ModelSpec;
  readonly params: Layout;
  readonly cache: Layout;
  /** C, sequences decoded together. */
  readonly slots: number;
  /** S, tokens a slot can hold. */
  readonly slotTokens: number;
}

/**
 * Reads prompts into cache slots and returns the logits that predict each one's first response token.
 *
 * Inputs: ids int32 `[rows, tokens]`; slots int32 `[rows]`; last int32 `[rows]`, flat index of each prompt's last token.
 * Outputs: logits `[rows, V]`.
 */
export function prefillProgram(shape: GenerationShape, rows: number, tokens: number): Program {
  const { spec } = shape;
  return {
    key: `prefill ${specKey(spec)} C${shape.slots} S${shape.slotTokens} B${rows} T${tokens}`,
    arenas: {
      params: { layout: shape.params, access: "read" },
      cache: { layout: shape.cache, access: "update" },
    },
    inputs: {
      ids: { shape: [rows, tokens], dtype: "int32" },
      slots: { shape: [rows], dtype: "int32" },
      last: { shape: [rows], dtype: "int32" },
    },
    body: ({ params, cache }, { ids, slots, last }) => {
      const pass = prefillPass(ids, slots, cache);
      const hidden = embedding(familyOf(spec).hiddenStates(spec, params, pass), last);
      const logits = smallLinear(hidden, headWeight(spec, params), null, { weightIsOutIn: true });
      return { outputs: { logits }, updates: { cache: pass.updates } };
    },
  };
}

/**
 * One token of every slot.
 *
 * Inputs: ids int32 `[C]`, the newest token of each slot; lengths int32 `[C]`, tokens its cache holds already.
 * Outputs: logits `[C, V]`, predicting the token after `ids`.
 */
export function decodeProgram(shape: GenerationShape): Program {
  const { spec, slots } = shape;
  return {
    key: `decode ${specKey(spec)} C${slots} S${shape.slotTokens}`,
    arenas: {
      params: { layout: shape.params, access: "read" },
      cache: { layout: shape.cache, access: "update" },
    },
    inputs: { ids: { shape: [slots], dtype: "int32" }, lengths: { shape: [slots], dtype: "int32" } },
    body: ({ params, cache }, { ids, lengths }) => {
      const pass = decodePass(ids, lengths, cache);
      const hidden = familyOf(spec).hiddenStates(spec, params, pass);
      const logits = smallLinear(hidden, headWeight(spec, params), null, { weightIsOutIn: true });
      return { outputs: { logits }, updates: { cache: pass.updates } };
    },
  };
}
