/**
 * The coefficient of the KL penalty and how it moves between iterations.
 *
 *   fixed      β stays
 *   adaptive   e = clip(kl / target − 1, ±0.2)      β ← β · (1 + e · n / horizon)
 *
 * `kl` is the mean KL to the reference policy per sequence (nats) of the last `n` experiences.
 * @see Ziegler et al. 2019, arXiv:1909.08593 section 2.2
 */
import { configError, numericError } from "../shared/errors.js";

export type KlControllerOptions =
  | { readonly type: "fixed"; readonly coef: number }
  | {
      readonly type: "adaptive";
      readonly initCoef: number;
      readonly target: number;
      readonly horizonExperiences: number;
    };

/** The whole state: what a checkpoint stores. */
export interface KlController {
  readonly options: KlControllerOptions;
  /** β for the next experiences. */
  readonly coef: number;
}

/** One step changes β by at most this share of n / horizon, however far off the KL is. */
const MAX_PROPORTIONAL_ERROR = 0.2;

export function startKlController(options: KlControllerOptions): KlController {
  return { options, coef: options.type === "fixed" ? options.coef : options.initCoef };
}

/**
 * The controller after an iteration.
 *
 * @param kl          mean KL to the reference per sequence, nats; may be negative (k1)
 * @param experiences how many sequences that mean is over
 * @throws {TroupeError} NUMERIC when `kl` is not finite; CONFIG when n exceeds what the horizon can absorb
 */
export function stepKlController(controller: KlController, kl: number, experiences: number): KlController {
  const { options, coef } = controller;
  if (!Number.isFinite(kl))
    throw numericError(`KL to the reference policy is ${kl}; expected a finite number`);
  switch (options.type) {
    case "fixed":
      return controller;
    case "adaptive": {
      const error = Math.min(
        Math.max(kl / options.target - 1, -MAX_PROPORTIONAL_ERROR),
        MAX_PROPORTIONAL_ERROR,
      );
      const factor = 1 + (error * experiences) / options.horizonExperiences;
      if (factor <= 0) {
        throw configError(
          `klController.horizonExperiences is ${options.horizonExperiences}, too short for ${experiences} ` +
            `experiences per iteration: β would turn negative. Use at least ${Math.ceil(experiences * MAX_PROPORTIONAL_ERROR) + 1}`,
        );
      }
      return { options, coef: coef * factor };
    }
  }
}
