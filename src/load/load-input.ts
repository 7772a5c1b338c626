/** The input of a load run: a small data set, its tokenizer, a configuration, and a join token per role. */
import { randomBytes } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import { generateDataset, toJsonl, vocabularyTexts } from "../../examples/quickstart/generate.js";
import type { PartialConfig } from "../config/presets.js";
import { writeWordTokenizer } from "../data/tokenizer-files.js";
import { microShardsFor, responseTokensFor, type LoadOptions } from "./load-options.js";

/** Of the data set, at least; and for every micro-shard, so that a batch has a row for each. */
const ROWS = 144;
const ROWS_PER_SHARD = 9;
/** Thousands of workers on a few cores take their time; a task that is taken back is not what is measured. */
const TASK_TIMEOUT_MS = 600_000;
/** All workers have one address here. */
const MAX_CONNECTIONS = 65_536;

export interface LoadInput {
  readonly configFile: string;
  readonly tokenFile: string;
}

/** Writes everything a coordinator needs into `folder`. Stages 1 and 2 last a few steps; stage 3 never ends. */
export async function writeLoadInput(folder: string, options: LoadOptions): Promise<LoadInput> {
  await mkdir(folder, { recursive: true });
  const tokenizer = join(folder, "tokenizer");
  await writeWordTokenizer(tokenizer, vocabularyTexts());
  const rows = Math.max(ROWS, ROWS_PER_SHARD * microShardsFor(options));
  const data = join(folder, "preferences.jsonl");
  await writeFile(data, toJsonl(generateDataset({ rows, seed: 3 })));
  const responseTokens = responseTokensFor(options.experienceBytes);
  const microShards = microShardsFor(options);
  const config: PartialConfig = {
    name: "load",
    model: {
      fresh: { layers: 1, hidden: 32, heads: 2, contextTokens: 20 + responseTokens },
      tokenizer: { type: "path", path: tokenizer },
    },
    data: { path: data, split: [2, 3, 4], maxPromptTokens: 20, maxResponseTokens: 20 },
    sft: { batchSize: microShards <= 16 ? 16 : microShards },
    reward: { batchSize: microShards <= 16 ? 16 : microShards },
    generation: { maxNewTokens: responseTokens },
    ppo: {
      iterations: 1_000_000,
      rolloutBatchSize: options.collection,
      minibatchSize: options.collection,
      ppoEpochs: 1,
      normalizeScores: false,
    },
    cluster: {
      rollouts: options.rollouts,
      learners: options.learners,
      microShards,
      promptsPerTask: options.promptsPerTask,
      taskTimeoutMs: TASK_TIMEOUT_MS,
      maxConnectionsPerAddress: MAX_CONNECTIONS,
      maxConnections: MAX_CONNECTIONS,
      heartbeatIntervalMs: options.heartbeatMs,
      leaseTtlMs: Math.max(50_000, 4 * options.heartbeatMs),
    },
    checkpoint: { everyIterations: 4 },
    eval: { prompts: 8, samples: 1 },
  };
  const configFile = join(folder, "load.yaml");
  await writeFile(configFile, stringify(config));
  const tokenFile = join(folder, "token");
  const lines = ["rollout", "learner", "control"].map(
    (role) => `${role} ${randomBytes(32).toString("hex")}\n`,
  );
  await writeFile(tokenFile, lines.join(""), { mode: 0o600 });
  return { configFile, tokenFile };
}
