/**
 * The run that is put under faults: all three stages on a model of one layer, small enough that starting a process
 * takes longer than an iteration. Every quantity a check needs is known beforehand.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { generateDataset, toJsonl, vocabularyTexts } from "../../examples/quickstart/generate.js";
import { parseConfig } from "../config/load.js";
import type { Config } from "../config/schema.js";
import { writeWordTokenizer } from "../data/tokenizer-files.js";

export interface TrainingOptions {
  /** Holds the data set and its tokenizer; made when missing. */
  readonly inputDir: string;
  readonly rollouts: number;
  readonly learners: number;
  /** PPO iterations; each is 16 experiences and 4 optimizer steps. */
  readonly iterations: number;
  /** Of the training itself, not of the faults. @default 7 */
  readonly seed?: number;
  /** `cluster.leaseTtlMs`. @default 10_000, the default of every run */
  readonly leaseTtlMs?: number;
}

export interface Training {
  readonly config: Config;
  /** What a run without any loss has done at its end. */
  readonly plan: TrainingPlan;
}

export interface TrainingPlan {
  readonly iterations: number;
  readonly experiencesPerIteration: number;
  readonly stepsPerIteration: number;
  /** Optimizer steps that list an experience: the PPO epochs. */
  readonly usesPerExperience: number;
}

const ROWS = 144;
const DATA_SEED = 3;
const ROLLOUT_BATCH = 16;
const MINIBATCH = 8;
const PPO_EPOCHS = 2;

/** Writes what the training reads and describes it. */
export async function prepareTraining(options: TrainingOptions): Promise<Training> {
  const { inputDir, iterations } = options;
  const tokenizer = join(inputDir, "tokenizer");
  const data = join(inputDir, "preferences.jsonl");
  await mkdir(inputDir, { recursive: true });
  await writeWordTokenizer(tokenizer, vocabularyTexts());
  await writeFile(data, toJsonl(generateDataset({ rows: ROWS, seed: DATA_SEED })));
  const { config } = parseConfig({
    file: "chaos training",
    text: "",
    base: {
      name: "chaos",
      seed: options.seed ?? 7,
      model: {
        fresh: { layers: 1, hidden: 32, heads: 2, contextTokens: 40 },
        tokenizer: { type: "path", path: tokenizer },
      },
      data: {
        path: data,
        split: [2, 3, 4],
        maxPromptTokens: 20,
        maxResponseTokens: 20,
        evalFraction: 0.1,
      },
      sft: { batchSize: 8, optimizer: { learningRate: 0.01 } },
      reward: { batchSize: 8, optimizer: { learningRate: 0.005 } },
      generation: { maxNewTokens: 12 },
      ppo: {
        iterations,
        rolloutBatchSize: ROLLOUT_BATCH,
        minibatchSize: MINIBATCH,
        ppoEpochs: PPO_EPOCHS,
        actor: { learningRate: 0.001 },
        critic: { learningRate: 0.002 },
      },
      cluster: {
        rollouts: options.rollouts,
        learners: options.learners,
        microShards: 4,
        promptsPerTask: 2,
        heartbeatIntervalMs: 500,
        leaseTtlMs: options.leaseTtlMs ?? 10_000,
        // Workers that are killed from outside are not their tasks' fault: no prompt may be given up as poison.
        maxTaskAttempts: 100,
      },
      checkpoint: { everyIterations: 1 },
      eval: { prompts: 8, samples: 1 },
    },
  });
  return {
    config,
    plan: {
      iterations,
      experiencesPerIteration: ROLLOUT_BATCH,
      stepsPerIteration: (ROLLOUT_BATCH / MINIBATCH) * PPO_EPOCHS,
      usesPerExperience: PPO_EPOCHS,
    },
  };
}
