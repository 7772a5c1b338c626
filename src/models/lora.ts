/**
 * Low-rank adapters. A linear module with weight W gets two small matrices beside it and computes with
 *
 *   W + (alpha / rank) · B·A        A `[rank, in]`, B `[out, rank]`
 *
 * without ever making that sum: y = x·Wᵀ + (alpha / rank) · (x·Aᵀ)·Bᵀ. B starts at zero, so a fresh adapter changes
 * nothing. Only what is *trained* has a gradient, moments and a share of the all-reduce: the adapters and a scalar
 * head, or everything when the base is not frozen. Models leave training merged, as plain Hugging Face folders.
 *
 * @see Hu et al. 2021, arXiv:2106.09685; DeepSpeed-Chat's LinearLayer_LoRA (its scaling 1/rank is alpha = 1)
 */
import { makeLayout, viewOf, type Layout } from "../engine/layout.js";
import { configError } from "../shared/errors.js";
import { streamOf, uniformAt } from "../shared/rng.js";
import { familyOf } from "./families.js";
import { layoutOf, tensorPlans, type ModelSpec } from "./model-spec.js";

/** What a run asks for: `model.lora` of its config. */
export interface LoraSettings {
  readonly rank: number;
  readonly alpha: number;
  /** Endings of module names, as PEFT's `target_modules`; "all-linear" stands for every linear module but the head. */
  readonly targetModules: readonly string[];
  /** false: the base is trained as well. */
  readonly onlyOptimizeLora: boolean;
  /** Share of an adapter's input elements that sft and reward training drop. @default 0 */
  readonly dropout?: number;
}

/** The adapters of one model. Plain JSON, part of its `ModelSpec`. */
export interface LoraSpec {
  readonly rank: number;
  readonly alpha: number;
  /** Adapted modules by full name, sorted. */
  readonly modules: readonly string[];
  readonly isBaseFrozen: boolean;
}

export const ALL_LINEAR = "all-linear";
export const adapterName = (module: string, part: "A" | "B"): string => `${module}.lora_${part}.weight`;

/** GPT-2's Conv1D keeps its weights `[in, out]`; PEFT calls that fan_in_fan_out. */
export const isConv1d = (spec: ModelSpec): boolean => spec.family === "gpt2";

/** Modules that an adapter can sit on: every matrix that is neither an embedding nor a head. */
export function linearModules(spec: ModelSpec): string[] {
  const { embeddingName } = familyOf(spec);
  return Object.entries(tensorPlans(spec))
    .filter(([name, { shape }]) => shape.length === 2 && name.endsWith(".weight") && name !== embeddingName)
    .map(([name]) => name.slice(0, -".weight".length))
    .filter((name) => !/(^|\.)(wpe|embed_positions|lm_head|score)$/.test(name))
    .sort();
}

/**
 * The spec with adapters.
 * @throws {TroupeError} CONFIG when a target names no linear module, or the rank exceeds a module's smaller side
 */
export function withLora(spec: ModelSpec, settings: LoraSettings): ModelSpec {
  const { rank, alpha, targetModules, onlyOptimizeLora } = settings;
  const known = linearModules(spec);
  const matches = (module: string, target: string) =>
    target === ALL_LINEAR || module === target || module.endsWith(`.${target}`);
  for (const target of targetModules) {
    if (known.some((module) => matches(module, target))) continue;
    const endings = [...new Set(known.map((module) => module.slice(module.lastIndexOf(".") + 1)))];
    throw configError(
      `model.lora.targetModules: no linear module of this ${spec.family} model is called ${target}; expected ${ALL_LINEAR} or endings like ${endings.join(", ")}`,
    );
  }
  const modules = known.filter((module) => targetModules.some((target) => matches(module, target)));
  const plans = tensorPlans(spec);
  for (const module of modules) {
    const smaller = Math.min(...plans[`${module}.weight`].shape);
    if (rank > smaller) {
      throw configError(
        `model.lora.rank ${rank} exceeds the smaller side ${smaller} of ${module}: an adapter of that rank is larger than what it adapts; lower it`,
      );
    }
  }
  return { ...spec, lora: { rank, alpha, modules, isBaseFrozen: onlyOptimizeLora } };
}

/** `[in, out]` of a module. */
function sidesOf(spec: ModelSpec, module: string): { readonly inputs: number; readonly outputs: number } {
  const [first, second] = tensorPlans(spec)[`${module}.weight`].shape;
  return isConv1d(spec) ? { inputs: first, outputs: second } : { inputs: second, outputs: first };
}

function adapterShapes(spec: ModelSpec, lora: LoraSpec): Record<string, readonly number[]> {
  const shapes: Record<string, readonly number[]> = {};
  for (const module of lora.modules) {
    const { inputs, outputs } = sidesOf(spec, module);
    shapes[adapterName(module, "A")] = [lora.rank, inputs];
    shapes[adapterName(module, "B")] = [outputs, lora.rank];
  }
  return shapes;
}

/** A scalar head starts at random, so it is trained even when the base is frozen. */
const isAlwaysTrained = (name: string): boolean => name === "score.weight";

/** What has a gradient: all of `layoutOf(spec)` without adapters or with a base that is not frozen. */
export function trainedLayout(spec: ModelSpec): Layout {
  const base = layoutOf(spec);
  const { lora } = spec;
  if (lora === undefined) return base;
  const trained = base.entries.filter(({ name }) => !lora.isBaseFrozen || isAlwaysTrained(name));
  const shapes = Object.fromEntries(trained.map(({ name, shape }) => [name, shape]));
  return makeLayout({ ...shapes, ...adapterShapes(spec, lora) });
}

/** What is only read; null when everything is trained. */
export function frozenLayout(spec: ModelSpec): Layout | null {
  return spec.lora?.isBaseFrozen === true ? splitLayout(spec).base : null;
}

/** A model without its adapters: the part that frozen adapters leave as it is, and a scalar head (null without one). */
export function splitLayout(spec: ModelSpec): { readonly base: Layout; readonly head: Layout | null } {
  const { entries } = layoutOf(spec);
  const layoutWhere = (isMember: (name: string) => boolean) =>
    makeLayout(
      Object.fromEntries(
        entries.filter(({ name }) => isMember(name)).map(({ name, shape }) => [name, shape]),
      ),
    );
  const head = layoutWhere(isAlwaysTrained);
  return { base: layoutWhere((name) => !isAlwaysTrained(name)), head: head.size === 0 ? null : head };
}

/**
 * The tensors of `layout` out of a whole model's values.
 * @param values flat, in `layoutOf(spec)` order
 * @param part   where they go; what the model does not have stays as it is there
 */
export function partOf(
  spec: ModelSpec,
  values: Float32Array,
  layout: Layout,
  part: Float32Array = new Float32Array(layout.size),
): Float32Array {
  const whole = layoutOf(spec);
  for (const { name, offset } of layout.entries) {
    if (whole.byName.has(name)) part.set(viewOf(whole, values, name), offset);
  }
  return part;
}

/** Parameters of a model under training; `frozen` is null when everything is trained. */
export interface SplitWeights {
  /** In `trainedLayout(spec)` order. */
  readonly trained: Float32Array;
  /** In `frozenLayout(spec)` order. */
  readonly frozen: Float32Array | null;
}

/**
 * Splits a model's weights and starts its adapters: A ~ U(−1/√in, 1/√in), which is Kaiming's with a = √5 as in PEFT
 * and DeepSpeed-Chat; B = 0.
 * @param values flat, in `layoutOf(spec)` order
 * @param into   where the frozen part goes; memory of its own by default
 */
export function splitWeights(
  spec: ModelSpec,
  values: Float32Array,
  seed: number,
  into?: Float32Array,
): SplitWeights {
  if (spec.lora === undefined) return { trained: values, frozen: null };
  const trainedIn = trainedLayout(spec);
  const trained = partOf(spec, values, trainedIn);
  for (const module of spec.lora.modules) {
    const name = adapterName(module, "A");
    const bound = 1 / Math.sqrt(sidesOf(spec, module).inputs);
    const stream = streamOf(`init/${name}`);
    const view = viewOf(trainedIn, trained, name);
    for (let i = 0; i < view.length; i++) view[i] = bound * (2 * uniformAt(seed, stream, i) - 1);
  }
  const frozenIn = frozenLayout(spec);
  return { trained, frozen: frozenIn === null ? null : partOf(spec, values, frozenIn, into) };
}

/**
 * The plain model: every adapter added into its weight, W + (alpha / rank) · B·A, in float64 and rounded once.
 * @returns flat, in `layoutOf(spec)` order; a copy
 */
export function mergedWeights(spec: ModelSpec, { trained, frozen }: SplitWeights): Float32Array {
  if (spec.lora === undefined) return trained.slice();
  const base = layoutOf(spec);
  const trainedIn = trainedLayout(spec);
  const frozenIn = frozenLayout(spec);
  const values = new Float32Array(base.size);
  for (const { name, offset } of base.entries) {
    const source = trainedIn.byName.has(name)
      ? viewOf(trainedIn, trained, name)
      : viewOf(frozenIn!, frozen!, name);
    values.set(source, offset);
  }
  for (const module of spec.lora.modules) {
    const part = (which: "A" | "B") => viewOf(trainedIn, trained, adapterName(module, which));
    addProduct(spec, module, viewOf(base, values, `${module}.weight`), { a: part("A"), b: part("B") });
  }
  return values;
}

/** weight += scale · B·A, or its transpose for `[in, out]` weights. Works in place. */
export function addProduct(
  spec: ModelSpec,
  module: string,
  weight: Float32Array,
  { a, b }: { readonly a: Float32Array; readonly b: Float32Array },
): void {
  const { rank, alpha } = spec.lora!;
  const { inputs, outputs } = sidesOf(spec, module);
  const isTransposed = isConv1d(spec);
  const [rows, columns] = isTransposed ? [inputs, outputs] : [outputs, inputs];
  const scale = alpha / rank;
  const sum = new Float64Array(columns);
  for (let row = 0; row < rows; row++) {
    sum.fill(0);
    for (let r = 0; r < rank; r++) {
      const factor = scale * (isTransposed ? a[r * inputs + row] : b[row * rank + r]);
      if (factor === 0) continue;
      if (isTransposed) for (let o = 0; o < columns; o++) sum[o] += factor * b[o * rank + r];
      else for (let i = 0; i < columns; i++) sum[i] += factor * a[r * inputs + i];
    }
    const at = row * columns;
    for (let i = 0; i < columns; i++) weight[at + i] += sum[i];
  }
}
