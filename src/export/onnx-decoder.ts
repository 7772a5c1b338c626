/**
 * A language model as one ONNX graph of the layout that transformers.js and optimum read, with free batch and sequence
 * sizes. Standard ops only, so any ONNX runtime takes it; our own engine traces graphs of fixed shapes instead
 * (src/engine/trace).
 *
 *   inputs   input_ids, position_ids int64 [B, T] · attention_mask int64 [B, S] · past_key_values.<i>.{key,value} [B, G, S − T, E]
 *   outputs  logits [B, T, V] · present.<i>.{key,value} [B, G, S, E]
 *
 * B sequences, T new tokens, S tokens with the past, G key heads of width E. Pads may stand anywhere: the mask hides
 * them and the caller's positions skip them.
 */
import { GraphBuilder, type Graph } from "../engine/trace/graph.js";
import type { SymbolicDims } from "../engine/trace/model-proto.js";
import { viewOf } from "../engine/layout.js";
import { familyOf } from "../models/families.js";
import { ropeFrequencies } from "../models/llama-decoder.js";
import { isConv1d } from "../models/lora.js";
import { layoutOf, tensorPlans, type Activation, type ModelSpec } from "../models/model-spec.js";
import { POSITION_OFFSET } from "../models/opt.js";
import { configError } from "../shared/errors.js";

/** Added to hidden scores: exp() of it is 0, and a row of nothing but pads stays finite. */
const HIDDEN_SCORE = -1e9;

type Dims = readonly (string | number)[];

export interface OnnxDecoder {
  readonly graph: Graph;
  /** Sizes of its inputs and outputs, some of them by name. */
  readonly symbols: SymbolicDims;
}

/**
 * @param values flat, in `layoutOf(spec)` order; the graph refers to them without a copy
 * @throws {TroupeError} CONFIG for a model with a scalar head
 */
export function onnxDecoder(spec: ModelSpec, values: Float32Array): OnnxDecoder {
  if (spec.head !== "lm")
    throw configError("export to onnx: needs a language model, got one with a scalar head");
  const decoder = new Decoder(spec, values);
  return { graph: decoder.build(), symbols: decoder.symbols };
}

class Decoder {
  /** Sizes of inputs and outputs, some of them by name. */
  readonly symbols: Record<string, Dims> = {};
  private readonly graph = new GraphBuilder();
  private readonly weights = new Set<string>();
  private readonly ids: string;
  private readonly mask: string;
  private readonly positions: string;
  /** int64 `[2]`: B, T */
  private readonly batchAndLength: string;
  /** int64 `[1]`: S */
  private readonly total: string;
  /** `[B, 1, T, S]`: 0 where a token may look, HIDDEN_SCORE elsewhere */
  private readonly bias: string;

  constructor(
    private readonly spec: ModelSpec,
    private readonly values: Float32Array,
  ) {
    const { graph } = this;
    this.ids = this.input("input_ids", "int64", ["batch_size", "sequence_length"]);
    this.mask = this.input("attention_mask", "int64", ["batch_size", "total_sequence_length"]);
    this.positions = this.input("position_ids", "int64", ["batch_size", "sequence_length"]);
    this.batchAndLength = graph.op("Shape", [this.ids]);
    this.total = graph.op("Shape", [this.mask], { start: 1, end: 2 });
    this.bias = this.causalBias();
  }

  build(): Graph {
    const { graph, spec } = this;
    const hidden = spec.ropeTheta === null ? this.learnedPositions() : this.rotaryPositions();
    // The head reads the embedding where it lies when they are tied.
    const head = spec.tieWordEmbeddings ? familyOf(spec).embeddingName : "lm_head.weight";
    const logits = graph.op("Gemm", [hidden, this.weight(head)], { transB: 1 });
    const shape = graph.op("Concat", [this.batchAndLength, graph.int64s([spec.vocabularySize])], { axis: 0 });
    this.output("logits", graph.op("Reshape", [logits, shape]), [
      "batch_size",
      "sequence_length",
      spec.vocabularySize,
    ]);
    return graph;
  }

  /** GPT-2 and OPT: learned positions, LayerNorm, a two-layer MLP. @returns `[B·T, embeddingSize]` */
  private learnedPositions(): string {
    const { graph, spec } = this;
    const isGpt2 = isConv1d(spec);
    const root = isGpt2 ? "transformer" : "model.decoder";
    const norm = (x: string, name: string): string =>
      graph.op("LayerNormalization", [x, this.weight(`${name}.weight`), this.weight(`${name}.bias`)], {
        axis: -1,
        epsilon: { float: spec.normEpsilon },
      });
    const before = (x: string, name: string) => (spec.postNorm ? x : norm(x, name));
    const after = (x: string, name: string) => (spec.postNorm ? norm(x, name) : x);
    const [table, offset] = isGpt2
      ? [`${root}.wpe.weight`, 0]
      : [`${root}.embed_positions.weight`, POSITION_OFFSET];
    const rows = offset === 0 ? this.positions : graph.op("Add", [this.positions, graph.int64s([offset])]);
    const tokens = graph.op("Gather", [this.weight(familyOf(spec).embeddingName), this.ids]);
    const places = graph.op("Gather", [this.weight(table), rows]);
    const isProjected = spec.embeddingSize !== spec.hidden;
    let x = graph.reshape(tokens, [-1, spec.embeddingSize]);
    if (isProjected) x = this.linear(x, `${root}.project_in`);
    x = graph.op("Add", [x, graph.reshape(places, [-1, spec.hidden])]);
    for (let layer = 0; layer < spec.layers; layer++) {
      const block = isGpt2 ? `${root}.h.${layer}` : `${root}.layers.${layer}`;
      const names = isGpt2
        ? { attnNorm: "ln_1", out: "attn.c_proj", mlpNorm: "ln_2", up: "mlp.c_fc", down: "mlp.c_proj" }
        : {
            attnNorm: "self_attn_layer_norm",
            out: "self_attn.out_proj",
            mlpNorm: "final_layer_norm",
            up: "fc1",
            down: "fc2",
          };
      const a = before(x, `${block}.${names.attnNorm}`);
      const [q, k, v] = isGpt2
        ? graph.emit(
            "Split",
            [this.linear(a, `${block}.attn.c_attn`), graph.int64s([spec.hidden, spec.hidden, spec.hidden])],
            3,
            { axis: -1 },
          )
        : ["q_proj", "k_proj", "v_proj"].map((part) => this.linear(a, `${block}.self_attn.${part}`));
      const attended = this.attention(layer, this.headsFirst(q), this.headsFirst(k), this.headsFirst(v));
      x = graph.op("Add", [x, this.linear(attended, `${block}.${names.out}`)]);
      x = after(x, `${block}.${names.attnNorm}`);
      const normed = before(x, `${block}.${names.mlpNorm}`);
      const inner = this.activation(this.linear(normed, `${block}.${names.up}`));
      x = graph.op("Add", [x, this.linear(inner, `${block}.${names.down}`)]);
      x = after(x, `${block}.${names.mlpNorm}`);
    }
    x = before(x, isGpt2 ? `${root}.ln_f` : `${root}.final_layer_norm`);
    return isProjected ? this.linear(x, `${root}.project_out`) : x;
  }

  /** Llama and its relatives: rotary positions, RMSNorm, a gated MLP. @returns `[B·T, D]` */
  private rotaryPositions(): string {
    const { graph, spec } = this;
    const table = this.rotaryTable();
    const headsOf = (x: string, normName: string | null) => {
      const heads = this.headsFirst(x);
      return normName === null ? heads : this.rmsNorm(heads, normName);
    };
    const tokens = graph.op("Gather", [this.weight("model.embed_tokens.weight"), this.ids]);
    let x = graph.reshape(tokens, [-1, spec.hidden]);
    for (let layer = 0; layer < spec.layers; layer++) {
      const block = `model.layers.${layer}`;
      const attn = `${block}.self_attn`;
      const hasHeadNorm = spec.family === "qwen3";
      const a = this.rmsNorm(x, `${block}.input_layernorm`);
      const q = headsOf(this.linear(a, `${attn}.q_proj`), hasHeadNorm ? `${attn}.q_norm` : null);
      const k = headsOf(this.linear(a, `${attn}.k_proj`), hasHeadNorm ? `${attn}.k_norm` : null);
      const v = headsOf(this.linear(a, `${attn}.v_proj`), null);
      const attended = this.attention(layer, this.rotate(q, table), this.rotate(k, table), v);
      x = graph.op("Add", [x, this.linear(attended, `${attn}.o_proj`)]);
      const n = this.rmsNorm(x, `${block}.post_attention_layernorm`);
      const gate = this.activation(this.linear(n, `${block}.mlp.gate_proj`));
      const gated = graph.op("Mul", [gate, this.linear(n, `${block}.mlp.up_proj`)]);
      x = graph.op("Add", [x, this.linear(gated, `${block}.mlp.down_proj`)]);
    }
    return this.rmsNorm(x, "model.norm");
  }

  /** `[B·T, H·E]` -> `[B, H, T, E]` for any number of heads */
  private headsFirst(x: string): string {
    const { graph } = this;
    const shape = graph.op("Concat", [this.batchAndLength, graph.int64s([-1, this.spec.headSize])], {
      axis: 0,
    });
    return graph.transpose(graph.op("Reshape", [x, shape]), [0, 2, 1, 3]);
  }

  /** q `[B, H, T, E]`, k and v `[B, G, T, E]` -> `[B·T, H·E]`; declares the layer's past and present. */
  private attention(layer: number, q: string, k: string, v: string): string {
    const { graph, spec } = this;
    const { heads, kvHeads, headSize } = spec;
    const withPast = (part: "key" | "value", x: string) => {
      const dims = (tokens: string): Dims => ["batch_size", kvHeads, tokens, headSize];
      const past = this.input(`past_key_values.${layer}.${part}`, "float32", dims("past_sequence_length"));
      const present = graph.op("Concat", [past, x], { axis: 2 });
      this.output(`present.${layer}.${part}`, present, dims("total_sequence_length"));
      return present;
    };
    const keys = withPast("key", k);
    const values = withPast("value", v);
    // Query heads of one key head are stacked along the rows: no key or value is repeated. 0 keeps a dimension.
    const isGrouped = heads !== kvHeads;
    const toGroups = (x: string, columns: string) =>
      isGrouped ? this.reshapeTo(x, [graph.int64s([0, kvHeads, -1]), columns]) : x;
    const toHeads = (x: string, columns: string) =>
      isGrouped ? this.reshapeTo(x, [graph.int64s([0, heads, -1]), columns]) : x;
    const width = graph.int64s([headSize]);
    const scaled = graph.op("Mul", [q, graph.float(1 / Math.sqrt(headSize))]);
    const products = graph.op("MatMul", [toGroups(scaled, width), graph.transpose(keys, [0, 1, 3, 2])]);
    const scores = graph.op("Add", [toHeads(products, this.total), this.bias]);
    const weights = graph.op("Softmax", [scores], { axis: -1 });
    const mixed = toHeads(graph.op("MatMul", [toGroups(weights, this.total), values]), width);
    return graph.reshape(graph.transpose(mixed, [0, 2, 1, 3]), [-1, heads * headSize]);
  }

  private reshapeTo(x: string, parts: readonly string[]): string {
    return this.graph.op("Reshape", [x, this.graph.op("Concat", parts, { axis: 0 })]);
  }

  private causalBias(): string {
    const { graph } = this;
    const scalar = (x: string) => graph.op("Squeeze", [x]);
    const length = graph.op("Shape", [this.ids], { start: 1, end: 2 });
    const zero = graph.constant("int64", [], BigInt64Array.of(0n));
    const one = graph.constant("int64", [], BigInt64Array.of(1n));
    const keys = graph.op("Range", [zero, scalar(this.total), one]);
    const first = scalar(graph.op("Sub", [this.total, length]));
    const queries = graph.op("Range", [first, scalar(this.total), one]);
    const column = graph.op("Unsqueeze", [queries, graph.int64s([1])]);
    const isCausal = graph.op("LessOrEqual", [keys, column]); // [T, S]
    const isReal = graph.op("Unsqueeze", [graph.cast(this.mask, "bool"), graph.int64s([1, 2])]); // [B, 1, 1, S]
    const isSeen = graph.op("And", [isCausal, isReal]);
    return graph.op("Where", [isSeen, graph.float(0), graph.float(HIDDEN_SCORE)]);
  }

  /** `[B, 1, T, E/2]` each */
  private rotaryTable(): { readonly cos: string; readonly sin: string } {
    const { graph } = this;
    const frequencies = ropeFrequencies(this.spec);
    const at = graph.op("Unsqueeze", [graph.cast(this.positions, "float32"), graph.int64s([1, 3])]);
    const angles = graph.op("Mul", [at, graph.constant("float32", [frequencies.length], frequencies)]);
    return { cos: graph.op("Cos", [angles]), sin: graph.op("Sin", [angles]) };
  }

  /** Dimension i turns with dimension i + E/2. @param x `[B, H, T, E]` */
  private rotate(x: string, { cos, sin }: { readonly cos: string; readonly sin: string }): string {
    const { graph } = this;
    const half = this.spec.headSize / 2;
    const [first, second] = graph.emit("Split", [x, graph.int64s([half, half])], 2, { axis: -1 });
    const times = (a: string, b: string) => graph.op("Mul", [a, b]);
    const turned = [
      graph.op("Sub", [times(first, cos), times(second, sin)]),
      graph.op("Add", [times(second, cos), times(first, sin)]),
    ];
    return graph.op("Concat", turned, { axis: -1 });
  }

  /** Over the last axis. */
  private rmsNorm(x: string, name: string): string {
    const { graph } = this;
    const square = graph.op("ReduceMean", [graph.op("Mul", [x, x]), graph.int64s([-1])], { keepdims: 1 });
    const root = graph.op("Sqrt", [graph.op("Add", [square, graph.float(this.spec.normEpsilon)])]);
    return graph.op("Mul", [graph.op("Div", [x, root]), this.weight(`${name}.weight`)]);
  }

  /** `[N, in]` -> `[N, out]`, with the module's bias if it has one. */
  private linear(x: string, module: string): string {
    const hasBias = tensorPlans(this.spec)[`${module}.bias`] !== undefined;
    const operands = [
      x,
      this.weight(`${module}.weight`),
      ...(hasBias ? [this.weight(`${module}.bias`)] : []),
    ];
    return this.graph.op("Gemm", operands, { transB: isConv1d(this.spec) ? 0 : 1 });
  }

  private activation(x: string): string {
    const { graph } = this;
    const kinds: Record<Activation, () => string> = {
      gelu_new: () => graph.op("Gelu", [x], { approximate: "tanh" }),
      gelu: () => graph.op("Gelu", [x], { approximate: "none" }),
      relu: () => graph.op("Relu", [x]),
      silu: () => graph.op("Mul", [x, graph.op("Sigmoid", [x])]),
    };
    return kinds[this.spec.activation]();
  }

  /** A parameter, under its Hugging Face name; the file refers to the model's memory without a copy. */
  private weight(name: string): string {
    if (this.weights.has(name)) return name;
    this.weights.add(name);
    const layout = layoutOf(this.spec);
    const view = viewOf(layout, this.values, name);
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    this.graph.initializers.push({ name, dtype: "float32", dims: layout.byName.get(name)!.shape, bytes });
    return name;
  }

  private input(name: string, dtype: "int64" | "float32", dims: Dims): string {
    this.symbols[name] = dims;
    return this.graph.input({ name, dtype, dims: [] });
  }

  private output(name: string, value: string, dims: Dims): void {
    this.symbols[name] = dims;
    this.graph.output({ name, dtype: "float32", dims: [] }, value);
  }
}
