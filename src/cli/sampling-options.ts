/** The options of chat and generate that say how answers are drawn. */
import { Option, type Command } from "commander";
import type { SamplingOptions } from "../rollout/sampling.js";
import type { EngineName } from "../engine/engine.js";
import { collect, positiveNumber, wholeNumber } from "./options.js";

export interface ModelCommandOptions {
  readonly model: string;
  readonly engine: EngineName | "auto";
  readonly promptTemplate?: string;
  readonly maxNewTokens: number;
  readonly stop?: string[];
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
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
    .option("--stop <text>", "an answer ends once it holds this; may be repeated", collect)
    .option("--temperature <t>", "above 1 more varied, below 1 more likely answers", positiveNumber, 1)
    .option("--top-k <k>", "draw from the k most likely tokens; 0 = all", wholeNumber(0), 0)
    .option(
      "--top-p <p>",
      "draw from the most likely tokens that make up this probability",
      positiveNumber,
      1,
    )
    .option("--greedy", "always the most likely token")
    .option("--seed <n>", "seed of the draws", wholeNumber(0, 4_294_967_295), 1);

export const samplingOf = (options: ModelCommandOptions): SamplingOptions => ({
  seed: options.seed,
  temperature: options.temperature,
  topK: options.topK,
  topP: Math.min(1, options.topP),
  minNewTokens: 0,
  maxNewTokens: options.maxNewTokens,
  repetitionPenalty: 1,
  greedy: options.greedy === true,
});
