import { shapeError } from "../shared/errors.js";

export interface GaeOptions {
  /** Discount in [0, 1]. RLHF default 1. */
  readonly gamma: number;
  /** λ in [0, 1]: 0 = one-step TD, 1 = return-to-go minus value. DeepSpeed-Chat 0.95. */
  readonly lam: number;
}

export interface Gae {
  /** `[R]` not whitened (see `whitenAdvantages`) */
  readonly advantages: Float32Array;
  /** `[R]` advantages + values: the critic's target */
  readonly returns: Float32Array;
}

/**
 * Generalised advantage estimation over one unpadded response.
 *
 *   δ_i = r_i + γ·V_(i+1) − V_i        Â_i = δ_i + γλ·Â_(i+1)        V_R = Â_R = 0
 *
 * The answer ends at its last token, whether by EOS or by the length limit: nothing is bootstrapped past it.
 * Every token takes part, including one that the action mask leaves out of the losses.
 *
 * @param rewards `[R]`
 * @param values  `[R]` values[i] = V(s_i), the state before token i
 * @returns both `[R]`; accumulated in float64, rounded once to float32
 * @throws {TroupeError} SHAPE when lengths differ
 * @see Schulman et al. 2016, arXiv:1506.02438 eq. 16; DeepSpeedExamples 83757d9c `get_advantages_and_returns`
 */
export function computeGae(rewards: Float32Array, values: Float32Array, { gamma, lam }: GaeOptions): Gae {
  const tokens = rewards.length;
  if (values.length !== tokens) {
    throw shapeError(`computeGae: rewards [${tokens}] and values [${values.length}] differ in length`);
  }
  const advantages = new Float32Array(tokens);
  const returns = new Float32Array(tokens);
  let nextAdvantage = 0;
  let nextValue = 0;
  for (let i = tokens - 1; i >= 0; i--) {
    const delta = rewards[i] + gamma * nextValue - values[i];
    nextAdvantage = delta + gamma * lam * nextAdvantage;
    nextValue = values[i];
    advantages[i] = nextAdvantage;
    returns[i] = nextAdvantage + values[i];
  }
  return { advantages, returns };
}
