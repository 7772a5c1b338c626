/** `DIR/summary.json` and `DIR/eval-samples.jsonl`: the results of a run, written by the coordinator at its end. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { dataError } from "../shared/errors.js";
import { writeAtomically } from "./run-directory.js";

const beforeAfter = z.looseObject({ before: z.number().nullish(), after: z.number().nullish() });

/** Fields of stages that did not run are missing; numbers that are not finite are null or missing. */
const summarySchema = z.looseObject({
  sft: z.looseObject({ evalLossBefore: z.number().nullish(), evalLossAfter: z.number().nullish() }).nullish(),
  reward: z.looseObject({ heldOutAccuracy: z.number().nullish() }).nullish(),
  ppo: z
    .looseObject({
      heldOutReward: beforeAfter.nullish(),
      goldScore: beforeAfter.nullish(),
      klToRef: z.number().nullish(),
      iterations: z.number().nullish(),
      experiences: z
        .looseObject({ admitted: z.number(), trained: z.number(), dropped: z.number(), buffered: z.number() })
        .nullish(),
    })
    .nullish(),
  processes: z.looseObject({ rollout: z.number(), learner: z.number() }).nullish(),
  seconds: z.number().nullish(),
  /** Folder of the final model. */
  model: z.string().nullish(),
  stateSha256: z.string().nullish(),
});

export type Summary = z.infer<typeof summarySchema>;

const sampleSchema = z.looseObject({
  prompt: z.string(),
  before: z.string(),
  after: z.string(),
  /** Reward-model scores. */
  rewardBefore: z.number().nullish(),
  rewardAfter: z.number().nullish(),
});

export type EvalSample = z.infer<typeof sampleSchema>;

/** Undefined when the run wrote none. @throws {TroupeError} DATA when it is not what a coordinator writes */
export async function readSummary(runDir: string): Promise<Summary | undefined> {
  const path = join(runDir, "summary.json");
  const text = await readIfThere(path);
  if (text === undefined) return undefined;
  return parsed(summarySchema, text, path);
}

export const writeSummary = (runDir: string, summary: Summary): Promise<void> =>
  writeAtomically(join(runDir, "summary.json"), `${JSON.stringify(summary, null, 2)}\n`);

/** Held-out prompts with the answers of the model before and after ppo; empty when the run wrote none. */
export async function readEvalSamples(runDir: string): Promise<EvalSample[]> {
  const path = join(runDir, "eval-samples.jsonl");
  const text = (await readIfThere(path)) ?? "";
  return text
    .split("\n")
    .map((line, i) => ({ line, where: `${path}:${i + 1}` }))
    .filter(({ line }) => line.trim() !== "")
    .map(({ line, where }) => parsed(sampleSchema, line, where));
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw dataError(`${path} cannot be read: ${(error as Error).message}`, { cause: error });
  }
}

function parsed<T>(schema: z.ZodType<T>, text: string, where: string): T {
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    const reason =
      cause instanceof z.ZodError ? z.prettifyError(cause).replaceAll("\n", " ") : (cause as Error).message;
    throw dataError(`${where} cannot be used: ${reason}`, { cause });
  }
}
