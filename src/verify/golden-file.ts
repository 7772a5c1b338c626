/** The golden file: inputs and results computed by another implementation, to be recomputed here. */
import { readFile } from "node:fs/promises";
import { z } from "zod";
import { dataError } from "../shared/errors.js";

const vector = z.array(z.number()).min(1);
const matrix = z
  .array(vector)
  .min(1)
  .refine((rows) => rows.every((row) => row.length === rows[0].length), "rows differ in length");

/** B sequences, T = prompt + answer width; index t of a `[B, T-1]` array is about the prediction of token t + 1. */
const ppoCase = z.object({
  promptWidth: z.int().min(1),
  padId: z.int(),
  klCtl: z.number(),
  clipRewardValue: z.number(),
  cliprange: z.number(),
  cliprangeValue: z.number(),
  gamma: z.number(),
  lam: z.number(),
  /** `[B, T]`, left-padded prompts and right-padded answers */
  inputIds: matrix,
  /** `[B, T]` */
  attentionMask: matrix,
  logprobs: matrix,
  refLogprobs: matrix,
  values: matrix,
  newLogprobs: matrix,
  newValues: matrix,
  /** `[B]` */
  scores: vector,
  expected: z.object({
    rewards: matrix,
    valuesZeroed: matrix,
    ends: vector,
    /** `[B, T-1-start]`, start = promptWidth − 1 */
    advantages: matrix,
    returns: matrix,
    actorLoss: z.number(),
    criticLoss: z.number(),
    dActorLoss_dNewLogprobs: matrix,
    dCriticLoss_dNewValues: matrix,
  }),
});

const rewardCase = z.object({
  padId: z.int(),
  numPaddingAtBeginning: z.int().min(0),
  promptLength: z.int().min(2),
  /** `[B, S]` */
  chosenIds: matrix,
  rejectedIds: matrix,
  /** `[2B, S]`, chosen rows first */
  tokenRewards: matrix,
  expected: z.object({
    loss: z.number(),
    chosenEndScores: vector,
    rejectedEndScores: vector,
    dLoss_dTokenRewards: matrix,
    forwardValueChosenEndScores: vector,
  }),
});

const miniDatasetCase = z.object({
  maxSize: z.int().min(1),
  smallBatchSize: z.int().min(1),
  addedSizes: z.array(z.int().min(0)),
  /** What each `add` returned: nothing, or small batches of row numbers. */
  expected: z.array(z.array(z.array(z.int())).nullable()),
});

const gatherCase = z.object({
  /** `[B, S, V]` */
  logits: z.array(matrix).min(1),
  /** `[B, S]` */
  inputIds: matrix,
  /** `[B, S-1]` */
  expected: z.object({ logprobs: matrix }),
});

const goldenSchema = z.object({
  source: z.string(),
  ppo: z.array(ppoCase).default([]),
  reward: z.array(rewardCase).default([]),
  miniDataset: z.array(miniDatasetCase).default([]),
  gatherLogProbs: z.array(gatherCase).default([]),
});

export type Golden = z.infer<typeof goldenSchema>;
export type PpoCase = z.infer<typeof ppoCase>;
export type RewardCase = z.infer<typeof rewardCase>;
export type MiniDatasetCase = z.infer<typeof miniDatasetCase>;
export type GatherCase = z.infer<typeof gatherCase>;

/** @throws {TroupeError} DATA naming the file and the first wrong field, or saying that it holds no case */
export async function readGoldenFile(path: string): Promise<Golden> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw dataError(`${path}: cannot be read; expected a golden file (JSON)`, { cause });
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw dataError(`${path}: not valid JSON`, { cause });
  }
  const parsed = goldenSchema.safeParse(json);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw dataError(`${path}: not a golden file: ${issue.path.join(".") || "top level"}: ${issue.message}`);
  }
  const { ppo, reward, miniDataset, gatherLogProbs } = parsed.data;
  if (ppo.length + reward.length + miniDataset.length + gatherLogProbs.length === 0) {
    throw dataError(
      `${path}: holds no cases; expected at least one of ppo, reward, miniDataset, gatherLogProbs`,
    );
  }
  return parsed.data;
}
