/**
 * How learners know without comparing parameters that they hold the same state: a digest of the history that led there,
 * `d₀ = H(stage)`, `dₙ = H(dₙ₋₁, n, checksum of the summed gradient)`, H = the first 128 bits of SHA-256. The same
 * starting state and the same gradients in the same order give the same parameters and moments; a skipped step changes
 * neither. What the digest cannot see (a flipped bit in memory) shows when whole states are compared, at every
 * checkpoint.
 */
import { createHash } from "node:crypto";

const HEX_DIGITS = 32;

const digest = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, HEX_DIGITS);

/** Before the first step of a stage. */
export const initialDigest = (stage: string): string => digest(`stage ${stage}`);

/**
 * @param before of the state before the step
 * @param gradientHash 32 bits, as in `StepVote.gradient_hash`
 */
export const nextDigest = (before: string, step: number, gradientHash: number): string =>
  digest(`${before} ${step} ${gradientHash}`);
