/**
 * The run that is put under faults: all three stages on a model of one layer, small enough that starting a process
 * takes longer than an iteration. Every quantity a check needs is known beforehand.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { generateDataset, toJsonl, vocabularyTexts } from "../../examples/quickstart/generate.js";
import { parseConfig } from "../config/load.js";
import type { DerivedSizes } from "../config/resolve.js";
import type { Config } from "../config/schema.js";
import type { DropReason } from "../coordinator/core/index.js";
import { intoRounds } from "../coordinator/round-manifest.js";
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
  /** Further settings, `a.b=value`: another kind of training. */
  readonly sets?: readonly string[];
}

export interface Training {
  readonly config: Config;
  /** What a run without any loss has done at its end. */
  readonly plan: TrainingPlan;
}

export interface TrainingPlan {
  readonly iterations: number;
  readonly experiencesPerIteration: number;
  /** Steps of the run: minibatches, or rounds of them. */
  readonly stepsPerIteration: number;
  /** Minibatches that list an experience: the PPO epochs. */
  readonly usesPerExperience: number;
  /** Faults must not change a single bit. Otherwise the result depends on who was there when, by design. */
  readonly isReproducible: boolean;
  /** Why admitted experiences may go untrained by design; with any of them steps may be fewer. */
  readonly mayDrop: readonly DropReason[];
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
  const { config, derived } = parseConfig({
    file: "chaos training",
    text: "",
    sets: options.sets,
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
      },
      checkpoint: { everyIterations: 1 },
      eval: { prompts: 8, samples: 1 },
    },
  });
  return { config, plan: planOf(config, derived) };
}

/** What a run of this config has done at its end when nothing was lost. */
function planOf({ ppo, cluster }: Config, derived: DerivedSizes): TrainingPlan {
  const { minibatchesPerEpoch, optimizerStepsPerIteration, experiencesPerIteration } = derived;
  const hasRounds = cluster.sync === "parameters";
  const minibatches = Array.from({ length: optimizerStepsPerIteration }, (_, i) => ({
    isFinalUse: i >= optimizerStepsPerIteration - minibatchesPerEpoch,
  }));
  return {
    iterations: ppo.iterations,
    experiencesPerIteration,
    stepsPerIteration: intoRounds(minibatches, hasRounds ? cluster.syncEvery : 1).length,
    usesPerExperience: ppo.ppoEpochs,
    isReproducible: !hasRounds && ppo.staleness === 0,
    mayDrop: [
      ...(hasRounds ? (["leftOut"] as const) : []),
      ...(ppo.staleness > 0 ? (["stale"] as const) : []),
    ],
  };
}
