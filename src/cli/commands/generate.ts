/** `troupe generate`: answers of a model to given prompts. */
import type { Command } from "commander";
import { configError, dataError } from "../../shared/errors.js";
import type { Lifetime } from "../lifetime.js";
import { addModelOptions, samplingOf, type ModelCommandOptions } from "../sampling-options.js";

interface GenerateOptions extends ModelCommandOptions {
  readonly prompt?: string[];
  readonly input?: string;
}

export function registerGenerate(program: Command, lifetime: Lifetime): void {
  const command = program.command("generate").description("write a model's answers, one JSON line each");
  addModelOptions(command)
    .option("--prompt <text>", "a prompt; may be repeated", (value: string, previous: string[] = []) => [
      ...previous,
      value,
    ])
    .option("--input <file>", "JSONL file with a `prompt` on each line")
    .action(async (options: GenerateOptions) => {
      const { signal } = lifetime;
      const sampling = samplingOf(options);
      const prompts = await promptsOf(options);
      const { LocalModel } = await import("../local-model.js");
      const model = await LocalModel.open(options.model, {
        ...options,
        slots: Math.min(MAX_SLOTS, prompts.length),
      });
      try {
        for (let start = 0; start < prompts.length && !signal.aborted; start += BATCH) {
          const batch = prompts.slice(start, start + BATCH);
          const answers = await model.answer(batch, sampling);
          answers.forEach(({ text, tokens, finishReason }, i) => {
            console.log(JSON.stringify({ prompt: batch[i], answer: text, tokens, finishReason }));
          });
        }
      } finally {
        await model.close();
      }
    });
}

/** Answers written side by side. */
const MAX_SLOTS = 16;
/** Prompts between two prints. */
const BATCH = 64;

async function promptsOf({ prompt = [], input }: GenerateOptions): Promise<string[]> {
  if (input === undefined && prompt.length === 0)
    throw configError("nothing to answer: give --prompt TEXT or --input FILE.jsonl");
  if (input === undefined) return prompt;
  const { readFile } = await import("node:fs/promises");
  const text = await readFile(input, "utf8").catch((cause: Error) => {
    throw dataError(`--input ${input} cannot be read: ${cause.message}`, { cause });
  });
  const rows = text.split("\n").map((line, i) => ({ line: line.trim(), where: `${input}:${i + 1}` }));
  return [
    ...prompt,
    ...rows.filter(({ line }) => line !== "").map(({ line, where }) => promptOfLine(line, where)),
  ];
}

function promptOfLine(line: string, where: string): string {
  let row: unknown;
  try {
    row = JSON.parse(line);
  } catch (cause) {
    throw dataError(`${where}: expected a JSON object with a prompt, got text that is not JSON`, { cause });
  }
  const prompt = (row as { prompt?: unknown } | null)?.prompt;
  if (typeof prompt !== "string")
    throw dataError(`${where}: expected "prompt" to be text, got ${JSON.stringify(prompt)}`);
  return prompt;
}
