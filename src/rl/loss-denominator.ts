/**
 * What each loss is divided by: the number of its terms in a whole minibatch, over all micro-shards and learners, so
 * that the gradient depends neither on how the minibatch is cut nor on who computes which part.
 */
import { countedTokens } from "./action-mask.js";

/** Response tokens with action mask 1. */
export function ppoDenominator(rows: readonly { readonly actionMask: Uint8Array }[]): number {
  return rows.reduce((total, { actionMask }) => total + countedTokens(actionMask), 0);
}

/** Target tokens: mask 1, and predicted at all (the first token of a row is not). Also that of the ptx term. */
export function sftDenominator(rows: readonly { readonly lossMask: Uint8Array }[]): number {
  return rows.reduce((total, { lossMask }) => total + countedTokens(lossMask.subarray(1)), 0);
}

/** Pairs: each is one comparison. */
export function rewardDenominator(pairs: readonly unknown[]): number {
  return pairs.length;
}
