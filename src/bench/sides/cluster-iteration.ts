/**
 * The iterations of ./ppo-iteration by a real cluster: `troupe ppo` with a coordinator and `workers` rollout workers
 * and learners, each a process. A turn is a whole run; its time is the median between the ends of two iterations, as the
 * run itself wrote them down; its facts are means over the same iterations.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import type { PartialConfig } from "../../config/presets.js";
import { writeWordTokenizer } from "../../data/tokenizer-files.js";
import { saveModelDir } from "../../models/checkpoint-dir.js";
import { initParams } from "../../models/model-spec.js";
import { dataError } from "../../shared/errors.js";
import { packageRoot } from "../../shared/paths.js";
import { medianOf } from "../contest.js";
import { benchIds, benchSpec, BENCH_OPTIMIZER } from "./bench-model.js";
import type { PpoIterationConfig } from "./ppo-iteration.js";
import type { Lap, Side } from "./side.js";

export interface ClusterIterationConfig extends PpoIterationConfig {
  /** Of each role. */
  readonly workers: number;
  /** `ppo.staleness`. @default 0: collecting and training in turn */
  readonly staleness?: number;
  /** @default 1 */
  readonly ppoEpochs?: number;
}

/** Means over the measured iterations of a turn. */
export interface ClusterIterationFacts {
  /** Between the ends of two iterations. */
  readonly iterationSeconds: number;
  /** `perf/rollout_seconds`: how long training waited for experience. */
  readonly rolloutSeconds: number;
  /** `perf/update_seconds`. */
  readonly updateSeconds: number;
  /** `data/staleness`: versions by which the trained experience was behind. */
  readonly staleness: number;
}

interface Iteration {
  /** Unix ms. */
  readonly end: number;
  readonly metrics: Readonly<Record<string, number>>;
}

/** The first iterations compile programs. */
const WARM_UP_ITERATIONS = 2;
const MEASURED_ITERATIONS = 5;
/** `<eos>`, `<pad>`, `<unk>` come before the words. */
const SPECIAL_TOKENS = 3;
const LETTERS = "abcdefghijklmnopqrstuvwxyz";

export async function open(config: ClusterIterationConfig): Promise<Side> {
  const folder = mkdtempSync(join(tmpdir(), "troupe-bench-"));
  const configFile = await writeInputs(folder, config);
  let turn = 0;
  const repeat = async (): Promise<Lap> => {
    const runDir = join(folder, `run-${turn++}`);
    await runToEnd(["ppo", configFile, "--run-dir", runDir]);
    const iterations = iterationsOf(runDir);
    rmSync(runDir, { recursive: true, force: true });
    const measured = iterations.slice(WARM_UP_ITERATIONS, WARM_UP_ITERATIONS + MEASURED_ITERATIONS);
    const seconds = measured.map(({ end }, i) => (end - iterations[WARM_UP_ITERATIONS + i - 1].end) / 1000);
    const mean = (name: string) => meanOf(measured.map(({ metrics }) => metrics[name]));
    const facts: ClusterIterationFacts = {
      iterationSeconds: meanOf(seconds),
      rolloutSeconds: mean("perf/rollout_seconds"),
      updateSeconds: mean("perf/update_seconds"),
      staleness: mean("data/staleness"),
    };
    return { units: 1, seconds: medianOf(seconds), facts: { ...facts } };
  };
  return { repeat, close: async () => rmSync(folder, { recursive: true, force: true }) };
}

async function writeInputs(folder: string, config: ClusterIterationConfig): Promise<string> {
  const { vocabulary, context, batch, minibatch, microShards, promptTokens, responseTokens } = config;
  const { threads, workers, staleness = 0, ppoEpochs = 1 } = config;
  const words = Array.from({ length: vocabulary - SPECIAL_TOKENS }, (_, i) => wordOf(i));
  await writeWordTokenizer(join(folder, "tokenizer"), words);
  for (const [name, head, seed] of [
    ["policy", "lm", 1],
    ["reward", "scalar", 2],
  ] as const) {
    const spec = benchSpec(config, head);
    const tokenizerDir = join(folder, "tokenizer");
    await saveModelDir(join(folder, name), spec, initParams(spec, seed), { tokenizerDir });
  }
  const rows = Array.from({ length: 4 * batch }, (_, row) => {
    const ids = benchIds(promptTokens, vocabulary - SPECIAL_TOKENS, row + 1);
    return JSON.stringify({ prompt: Array.from(ids, (id) => words[id]).join("") });
  });
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "prompts.jsonl"), `${rows.join("\n")}\n`);
  const optimizer = { ...BENCH_OPTIMIZER, learningRate: 1e-5, schedule: "constant" as const };
  const run: PartialConfig = {
    stages: ["ppo"],
    model: { path: join(folder, "policy") },
    reward: { path: join(folder, "reward") },
    data: {
      path: join(folder, "prompts.jsonl"),
      split: [0, 0, 1],
      maxPromptTokens: promptTokens,
      maxResponseTokens: responseTokens,
    },
    generation: { maxNewTokens: responseTokens },
    ppo: {
      // the last `staleness` iterations train with nothing left to collect beside them: they are not measured
      iterations: WARM_UP_ITERATIONS + MEASURED_ITERATIONS + staleness,
      rolloutBatchSize: batch,
      minibatchSize: minibatch,
      ppoEpochs,
      staleness,
      normalizeScores: false,
      actor: optimizer,
      critic: optimizer,
    },
    cluster: { rollouts: workers, learners: workers, microShards, promptsPerTask: batch / workers },
    checkpoint: { everyIterations: 0 },
    engine: { name: "onnx", threads },
    eval: { prompts: 0, samples: 0 },
  };
  if (context < promptTokens + responseTokens)
    throw dataError(`a context of ${context} tokens does not hold ${promptTokens} + ${responseTokens}`);
  const file = join(folder, "bench.yaml");
  await writeFile(file, stringify(run));
  return file;
}

/** A space and letters only, so that it stays one token between others. */
const wordOf = (index: number): string =>
  " " + Array.from(index.toString(26).padStart(4, "0"), (digit) => LETTERS[parseInt(digit, 26)]).join("");

async function runToEnd(args: readonly string[]): Promise<void> {
  const child = spawn(process.execPath, [join(packageRoot, "bin", "troupe.mjs"), ...args], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, NO_COLOR: "1" },
  });
  let errors = "";
  child.stderr.on("data", (text: Buffer) => (errors = (errors + text.toString()).slice(-4000)));
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) throw dataError(`troupe ${args.join(" ")} ended with ${code}: ${errors.trim()}`);
}

const meanOf = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

function iterationsOf(runDir: string): Iteration[] {
  return readFileSync(join(runDir, "metrics.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Pick<Iteration, "metrics"> & Record<"kind" | "stage" | "time", string>)
    .filter(({ kind, stage }) => kind === "progress" && stage === "ppo")
    .map(({ time, metrics }) => ({ end: Date.parse(time), metrics }));
}
