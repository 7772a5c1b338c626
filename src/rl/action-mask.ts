/**
 * Which response tokens the losses count, and where DeepSpeed-Chat's pad-equals-EOS convention differs.
 *
 * Normally every sampled token counts, the EOS included. DeepSpeed-Chat pads with the EOS id and derives its masks
 * from `id ≠ pad`, so the EOS action is masked out: the reward still lands on it (its `ends` is one past the last
 * unmasked token) but neither loss trains it. Where its pad id differs from EOS (llama) it puts the reward on the
 * pad *after* EOS; responses here are unpadded, so the reward stays on EOS.
 *
 * @see DeepSpeedExamples 83757d9c, dschat/rlhf/ppo_trainer.py (`generate_experience`, `train_rlhf`)
 */

export interface EosGap {
  readonly eosId: number;
  readonly padId: number;
}

/**
 * @param responseIds `[R]`, including the EOS when the model produced one
 * @param eosGap      null counts every token; otherwise tokens equal to the pad id do not count if EOS is that id
 * @returns `[R]` 1 where the token counts in the losses
 */
export function actionMaskOf(responseIds: Int32Array, eosGap: EosGap | null): Uint8Array {
  const mask = new Uint8Array(responseIds.length).fill(1);
  if (eosGap === null || eosGap.eosId !== eosGap.padId) return mask;
  for (let i = 0; i < mask.length; i++) if (responseIds[i] === eosGap.padId) mask[i] = 0;
  return mask;
}

/** Number of tokens with mask 1. */
export function countedTokens(mask: Uint8Array): number {
  let count = 0;
  for (let i = 0; i < mask.length; i++) count += mask[i];
  return count;
}
