/**
 * The quickstart: writes a small data set of a made-up world, runs the three stages on it, and measures the answers
 * with the world's own rule, which training never saw.
 */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseConfig, type LoadedConfig } from "../config/load.js";
import {
  layered,
  QUICKSTART_PRESETS,
  QUICKSTART_ROWS,
  type PartialConfig,
  type QuickstartPresetName,
} from "../config/presets.js";
import { writeAtomically } from "./run-directory.js";
import type { EvalSample, Summary } from "./summary.js";

export interface QuickstartSources {
  readonly preset: QuickstartPresetName;
  readonly runDir: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly sets?: readonly string[];
  readonly flags?: Readonly<Record<string, unknown>>;
}

const dataPath = (runDir: string): string => join(resolve(runDir), "data", "preferences.jsonl");
const tokenizerPath = (runDir: string): string => join(resolve(runDir), "data", "tokenizer");

/** @throws {TroupeError} CONFIG */
export function quickstartConfig({ preset, runDir, env, sets, flags }: QuickstartSources): LoadedConfig {
  const made: PartialConfig = {
    data: { path: dataPath(runDir) },
    model: { tokenizer: { type: "path", path: tokenizerPath(runDir) } },
  };
  const base = layered(made, QUICKSTART_PRESETS[preset]) as PartialConfig;
  return parseConfig({ file: `quickstart preset ${preset}`, text: "", base, env, sets, flags });
}

/** Writes the data set and the tokenizer of its world, unless an earlier start of the same run did. */
export async function writeQuickstartData(
  runDir: string,
  preset: QuickstartPresetName,
  seed: number,
): Promise<void> {
  const { generateDataset, toJsonl, vocabularyTexts } = await import("../../examples/quickstart/generate.js");
  const { writeWordTokenizer } = await import("../data/tokenizer-files.js");
  await mkdir(join(runDir, "data"), { recursive: true });
  if (!existsSync(join(tokenizerPath(runDir), "tokenizer_config.json"))) {
    await writeWordTokenizer(tokenizerPath(runDir), vocabularyTexts());
  }
  if (existsSync(dataPath(runDir))) return;
  await writeAtomically(dataPath(runDir), toJsonl(generateDataset({ rows: QUICKSTART_ROWS[preset], seed })));
}

/** Adds the mean gold score of the held-out answers before and after ppo. */
export async function withGoldScore(summary: Summary, samples: readonly EvalSample[]): Promise<Summary> {
  if (samples.length === 0) return summary;
  const { goldScore } = await import("../../examples/quickstart/gold.js");
  const mean = (answerOf: (sample: EvalSample) => string) =>
    samples.reduce((sum, sample) => sum + goldScore(sample.prompt, answerOf(sample)), 0) / samples.length;
  const gold = { before: mean((sample) => sample.before), after: mean((sample) => sample.after) };
  return { ...summary, ppo: { ...summary.ppo, goldScore: gold } };
}
