/** Rows of a micro-shard and what can be counted of them. How they become tensors is in ./packed-rows. */
import type { PreferencePair, SftRow } from "../data/types.js";
import { ppoDenominator, rewardDenominator, sftDenominator } from "../rl/loss-denominator.js";
import type { MicroShard, PpoRow, ShardRows } from "../rpc/codec/shard.js";
import { shapeError } from "../shared/errors.js";

export type { MicroShard, PpoRow, PreferencePair, SftRow, ShardRows };

/** Tokens of a row; of the longer side of a pair. */
export const lengthOf = {
  sft: (row: SftRow): number => row.ids.length,
  reward: ({ chosen, rejected }: PreferencePair): number => Math.max(chosen.length, rejected.length),
  ppo: ({ promptIds, responseIds }: PpoRow): number => promptIds.length + responseIds.length,
};

/** What the rows add to the denominator of their loss; those of the ptx term not included. */
export function denominatorOf(rows: ShardRows): number {
  switch (rows.kind) {
    case "sft":
      return sftDenominator(rows.rows);
    case "reward":
      return rewardDenominator(rows.rows);
    case "ppo":
      return ppoDenominator(rows.rows);
  }
}

/** Tokens of the rows that are run forward and backward. */
export function tokensOf(rows: ShardRows): number {
  const total = <R>(list: readonly R[], tokens: (row: R) => number) =>
    list.reduce((sum, row) => sum + tokens(row), 0);
  switch (rows.kind) {
    case "sft":
      return total(rows.rows, lengthOf.sft);
    case "reward":
      return total(rows.rows, ({ chosen, rejected }) => chosen.length + rejected.length);
    case "ppo":
      return total(rows.rows, lengthOf.ppo) + total(rows.ptx ?? [], lengthOf.sft);
  }
}

/** @throws {TroupeError} SHAPE when the model cannot hold a sequence */
export function checkLengths(lengths: readonly number[], contextTokens: number): void {
  const longest = Math.max(0, ...lengths);
  if (longest > contextTokens) {
    throw shapeError(
      `a sequence has ${longest} tokens; the model holds ${contextTokens}. Lower data.maxPromptTokens or generation.maxNewTokens`,
    );
  }
}
