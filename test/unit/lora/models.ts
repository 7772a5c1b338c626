/** Tiny models of every weight layout, with adapters that are not zero. */
import { laySft } from "../../../src/learner/packed-rows.js";
import { specKey } from "../../../src/models/forward.js";
import { tokenValues } from "../models/whole-sequences.js";
import { createEngine } from "../../../src/engine/create-engine.js";
import type { Engine, Program } from "../../../src/engine/engine.js";
import type { Layout } from "../../../src/engine/layout.js";
import {
  frozenLayout,
  splitWeights,
  trainedLayout,
  withLora,
  type LoraSettings,
  type SplitWeights,
} from "../../../src/models/lora.js";
import { initParams, parseModelConfig, type Head, type ModelSpec } from "../../../src/models/model-spec.js";
import { fillNormal, streamOf } from "../../../src/shared/rng.js";

export const VOCABULARY = 23;

const LLAMA = {
  vocab_size: VOCABULARY,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 16,
  eos_token_id: 0,
  pad_token_id: 1,
};

const OPT = {
  model_type: "opt",
  vocab_size: VOCABULARY,
  hidden_size: 8,
  ffn_dim: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  max_position_embeddings: 16,
  eos_token_id: 0,
  pad_token_id: 1,
};

/** One config per way that weights are stored and projections are called. */
export const CONFIGS: Readonly<Record<string, Record<string, unknown>>> = {
  gpt2: {
    model_type: "gpt2",
    vocab_size: VOCABULARY,
    n_embd: 8,
    n_layer: 2,
    n_head: 2,
    n_positions: 16,
    eos_token_id: 0,
    pad_token_id: 1,
  },
  opt: OPT,
  "opt-350m": { ...OPT, word_embed_proj_dim: 6, do_layer_norm_before: false },
  llama: { model_type: "llama", ...LLAMA },
  qwen3: { model_type: "qwen3", ...LLAMA, head_dim: 6 },
};

export const SETTINGS: LoraSettings = {
  rank: 2,
  alpha: 6,
  targetModules: ["all-linear"],
  onlyOptimizeLora: true,
};

export const plainSpec = (family: string, head: Head = "lm"): ModelSpec =>
  // Larger than real initial weights, so that a mistake in any layer shows in the logits.
  parseModelConfig({ ...CONFIGS[family], initializer_range: 0.4, init_std: 0.4 }, head);

/** A model of random weights; with `isFresh` its adapters are as training starts them, else random as well. */
export function adapted(
  family: string,
  options: { head?: Head; isFresh?: boolean; settings?: Partial<LoraSettings> } = {},
): { plain: ModelSpec; spec: ModelSpec; base: Float32Array; weights: SplitWeights } {
  const plain = plainSpec(family, options.head);
  const spec = withLora(plain, { ...SETTINGS, ...options.settings });
  const base = initParams(plain, 7);
  const weights = splitWeights(spec, base, 3);
  if (options.isFresh !== true) {
    const layout = trainedLayout(spec);
    for (const { name, offset, size } of layout.entries) {
      if (name.includes(".lora_")) {
        fillNormal(weights.trained.subarray(offset, offset + size), 0.2, 11, streamOf(name));
      }
    }
  }
  return { plain, spec, base, weights };
}

let engine: Promise<Engine> | undefined;
export const onnx = (): Promise<Engine> =>
  (engine ??= createEngine({ name: "onnx" }).then((made) => made.engine));

/** Runs a program of `spec` on these weights. */
export async function runOn(
  spec: ModelSpec,
  { trained, frozen }: SplitWeights,
  program: Program,
  inputs: Readonly<Record<string, Float32Array | Int32Array>>,
) {
  const made = await onnx();
  const arenas: Record<string, ReturnType<Engine["createArena"]>> = {};
  const add = (alias: string, layout: Layout | null, values?: Float32Array) => {
    if (layout !== null && program.arenas[alias] !== undefined)
      arenas[alias] = made.createArena(layout, values);
  };
  add("params", trainedLayout(spec), trained);
  add("frozen", frozenLayout(spec), frozen ?? undefined);
  add("grads", trainedLayout(spec));
  const outputs = await (await made.compile(program)).run(arenas, inputs);
  return { outputs, grads: arenas.grads === undefined ? null : (await arenas.grads.read()).slice() };
}

/** The run of whole sequences, every token after the first listed. */
export function listed(sequences: readonly (readonly number[])[]) {
  const rows = sequences.map((ids) => ({
    ids: Int32Array.from(ids),
    lossMask: new Uint8Array(ids.length).fill(1),
  }));
  const options = { budgetTokens: 64, hidden: 8, contextTokens: 64, padId: 0 };
  const [{ shape, ids, starts, at, labels, mask }] = laySft(rows, options);
  return { shape, inputs: { ids, starts, at, labels, mask } };
}

/** The scalar head at every position of one sequence. */
export function valuesProgram(spec: ModelSpec, length: number): Program {
  const params = { layout: trainedLayout(spec), access: "read" } as const;
  const frozen = frozenLayout(spec);
  return {
    key: `values ${specKey(spec)} T${length}`,
    arenas: frozen === null ? { params } : { params, frozen: { layout: frozen, access: "read" } },
    inputs: { ids: { shape: [1, length], dtype: "int32" } },
    body: (arenas, { ids }) => ({
      outputs: { values: tokenValues(spec, { ...arenas.frozen, ...arenas.params }, ids) },
    }),
  };
}
