/** The values a fresh tensor starts from. */
export type Initializer =
  { readonly type: "zeros" } | { readonly type: "ones" } | { readonly type: "normal"; readonly std: number };

/** A parameter's shape and how a fresh one starts. */
export interface TensorPlan {
  readonly shape: readonly number[];
  readonly init: Initializer;
}

/** Deviation of fresh weights when a config gives none; the same in every supported family. */
export const INITIALIZER_RANGE = 0.02;

export const ONES: Initializer = { type: "ones" };
export const ZEROS: Initializer = { type: "zeros" };
/** @param range the spec's `initializerRange` */
export const weightInit = (range: number): Initializer => ({ type: "normal", std: range });

/** Each layer adds to the residual stream twice; scaled so that its variance does not grow with depth (GPT-2). */
export const residualInit = (range: number, layers: number): Initializer => ({
  type: "normal",
  std: range / Math.sqrt(2 * layers),
});

/** Weight and bias of a LayerNorm. */
export function normPlans(name: string, width: number): Record<string, TensorPlan> {
  return {
    [`${name}.weight`]: { shape: [width], init: ONES },
    [`${name}.bias`]: { shape: [width], init: ZEROS },
  };
}

/** Weight and, when `outputs` is given, bias of an affine map. */
export function affinePlans(
  name: string,
  shape: readonly number[],
  outputs: number | null,
  init: Initializer,
): Record<string, TensorPlan> {
  const weight = { [`${name}.weight`]: { shape, init } };
  return outputs === null ? weight : { ...weight, [`${name}.bias`]: { shape: [outputs], init: ZEROS } };
}
