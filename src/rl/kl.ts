/**
 * Estimators of KL(π ‖ π_ref) from tokens sampled from π, per token, with Δ = log π(token) − log π_ref(token):
 *
 *   k1 = Δ                  unbiased, may be negative, high variance
 *   k2 = Δ² / 2             biased, never negative, low variance
 *   k3 = e^(−Δ) − 1 + Δ     unbiased, never negative, low variance
 *
 * @see J. Schulman 2020, "Approximating KL Divergence", http://joschu.net/blog/kl-approx.html
 */
import { shapeError } from "../shared/errors.js";

export type KlEstimator = "k1" | "k2" | "k3";

/** One token's estimate, in nats. */
export function tokenKl(estimator: KlEstimator, logprob: number, refLogprob: number): number {
  const delta = logprob - refLogprob;
  switch (estimator) {
    case "k1":
      return delta;
    case "k2":
      return (delta * delta) / 2;
    case "k3":
      return Math.expm1(-delta) + delta;
  }
}

/**
 * KL of one response: the sum of its tokens' estimates, in nats.
 *
 * @param logprobs    `[R]` log π(token)
 * @param refLogprobs `[R]` log π_ref(token), same temperature
 * @param actionMask  `[R]` tokens with 0 are left out; all count without it
 * @returns 0 for an empty response
 * @throws {TroupeError} SHAPE when lengths differ
 */
export function sequenceKl(
  estimator: KlEstimator,
  logprobs: Float32Array,
  refLogprobs: Float32Array,
  actionMask?: Uint8Array,
): number {
  const tokens = logprobs.length;
  if (refLogprobs.length !== tokens || (actionMask !== undefined && actionMask.length !== tokens)) {
    throw shapeError(
      `sequenceKl: logprobs [${tokens}], refLogprobs [${refLogprobs.length}] and actionMask ` +
        `[${actionMask?.length ?? tokens}] must have one length`,
    );
  }
  let sum = 0;
  for (let i = 0; i < tokens; i++) {
    if (actionMask === undefined || actionMask[i] === 1)
      sum += tokenKl(estimator, logprobs[i], refLogprobs[i]);
  }
  return sum;
}
