/** The arithmetic of every architecture; its config and tensors are in families.ts. */
import type { Tensor } from "@tensorflow/tfjs";
import type { Tensors } from "../engine/engine.js";
import type { ForwardPass } from "./forward-pass.js";
import { gpt2Decoder } from "./gpt2-decoder.js";
import { llamaDecoder } from "./llama-decoder.js";
import type { FamilyName, ModelSpec } from "./model-spec.js";
import { optDecoder } from "./opt-decoder.js";

/**
 * Embeddings, all layers and the final norm: what the heads read.
 * @returns `[B·T, embeddingSize]`, or `[N, embeddingSize]` when the pass says which positions are wanted
 */
export type Decoder = (spec: ModelSpec, params: Tensors, pass: ForwardPass) => Tensor;

const DECODERS: Readonly<Record<FamilyName, Decoder>> = {
  gpt2: gpt2Decoder,
  opt: optDecoder,
  llama: llamaDecoder,
  mistral: llamaDecoder,
  qwen2: llamaDecoder,
  qwen3: llamaDecoder,
};

export const decoderOf = ({ family }: ModelSpec): Decoder => DECODERS[family];
