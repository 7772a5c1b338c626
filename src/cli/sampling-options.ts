/** The options of chat and generate that say how answers are drawn. */
import { Option, type Command } from "commander";
import type { SamplingOptions } from "../rollout/sampling.js";
import type { EngineName } from "../engine/engine.js";
import { configError } from "../shared/errors.js";
import { collect, positiveNumber, wholeNumber } from "./options.js";

export interface ModelCommandOptions {
  readonly model: string;
  readonly engine: EngineName | "auto";
  readonly promptTemplate?: string;
  readonly minNewTokens: number;
  readonly maxNewTokens: number;
  readonly stop?: string[];
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly repetitionPenalty: number;
  readonly greedy?: boolean;
  readonly seed: number;
}

export const addModelOptions = (command: Command): Command =>
  command
    .requiredOption("--model <dir>", "model folder, such as RUN_DIR/models/ppo")
    .addOption(
      new Option("--engine <name>", "what computes")
        .choices(["auto", "onnx", "tensorflow", "reference"])
        .default("auto"),
    )
    .option("--prompt-template <text>", "text around a prompt, {prompt} is replaced (default: the run's own)")
    .option("--max-new-tokens <n>", "longest answer", wholeNumber(1), 64)
    .option("--min-new-tokens <n>", "no answer ends by itself before this", wholeNumber(0), 0)
    .option("--stop <text>", "an answer ends once it holds this; may be repeated", collect)
    .option("--temperature <t>", "above 1 more varied, below 1 more likely answers", positiveNumber, 1)
    .option("--top-k <k>", "draw from the k most likely tokens; 0 = all", wholeNumber(0), 0)
    .option(
      "--top-p <p>",
      "draw from the most likely tokens that make up this probability",
      positiveNumber,
      1,
    )
    .option(
      "--repetition-penalty <p>",
      "above 1: tokens that prompt or answer already hold become less likely",
      positiveNumber,
      1,
    )
    .option("--greedy", "always the most likely token")
    .option("--seed <n>", "seed of the draws", wholeNumber(0, 4_294_967_295), 1);

/** @throws {TroupeError} CONFIG when an answer would have to be longer than it may be */
export function samplingOf(options: ModelCommandOptions): SamplingOptions {
  const { seed, temperature, topK, topP, minNewTokens, maxNewTokens, repetitionPenalty } = options;
  if (minNewTokens > maxNewTokens)
    throw configError(`--min-new-tokens ${minNewTokens} is above --max-new-tokens ${maxNewTokens}`);
  return {
    ...{ seed, temperature, topK, minNewTokens, maxNewTokens, repetitionPenalty },
    topP: Math.min(1, topP),
    greedy: options.greedy === true,
  };
}
