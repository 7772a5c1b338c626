/** A trained model in this process, for chat and generate. */
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { dirname, join, resolve } from "node:path";
import { PromptTemplate } from "../data/prompt-template.js";
import { TokenizerPool } from "../data/tokenizer-pool.js";
import type { StopTable } from "../data/stop-table.js";
import type { ChatMessage } from "../data/types.js";
import { readSpec } from "../models/checkpoint-dir.js";
import { readGenerationDefaults } from "../models/generation-defaults.js";
import { weightFiles } from "../models/model-files.js";
import { headOf } from "../models/model-head.js";
import type { EngineName } from "../engine/engine.js";
import { RolloutCompute } from "../rollout/rollout-compute.js";
import type { SamplingOptions } from "../rollout/sampling.js";
import { PREFILL_ROWS } from "../rollout/token-buckets.js";
import type { FinishReason } from "../rl/types.js";
import { dataError } from "../shared/errors.js";

export interface LocalModelOptions {
  readonly engine: EngineName | "auto";
  readonly threads?: number;
  /** Text around a prompt; without it the one the model was trained with, if its run can be found, else none. */
  readonly promptTemplate?: string;
  /** Texts that end an answer. @default none */
  readonly stop?: readonly string[];
  /** Answers written side by side: each takes memory for its longest sequence. */
  readonly slots: number;
}

export interface Answer {
  readonly text: string;
  readonly tokens: number;
  readonly finishReason: FinishReason;
}

export class LocalModel {
  #draws = 0;

  private constructor(
    readonly directory: string,
    readonly compute: RolloutCompute,
    readonly tokenizer: TokenizerPool,
    readonly template: PromptTemplate,
    readonly stops: StopTable | null,
  ) {}

  /** @throws {TroupeError} DATA when the folder is not a usable model */
  static async open(model: string, options: LocalModelOptions): Promise<LocalModel> {
    const directory = resolve(model);
    const hfConfigJson = await readFile(join(directory, "config.json"), "utf8").catch((cause: unknown) => {
      throw dataError(
        `${directory} has no config.json; expected a model folder, such as RUN_DIR/models/ppo`,
        {
          cause,
        },
      );
    });
    await readSpec(directory, "lm"); // what is wrong with config.json is said with its folder
    if ((await headOf(directory)) === "scalar") {
      throw dataError(
        `${directory} is a reward model: it scores answers and writes none; expected a language model, such as RUN_DIR/models/ppo`,
      );
    }
    const weights = await weightFiles(directory);
    const template = new PromptTemplate(
      options.promptTemplate ?? (await trainedTemplate(directory)) ?? "{prompt}",
    );
    const tokenizer = await TokenizerPool.open(directory);
    try {
      const stops = options.stop?.filter((text) => text !== "") ?? [];
      const stopTable = stops.length === 0 ? null : await tokenizer.stopTable(stops);
      const { eosIds } = await readGenerationDefaults(directory, [tokenizer.info.eosId]);
      const compute = await RolloutCompute.open({
        engine: { name: options.engine, threads: options.threads ?? availableParallelism() },
        models: [{ role: "actor", hfConfigJson, head: "lm" }],
        eosIds,
        slots: options.slots,
        prefillRows: Math.min(PREFILL_ROWS, options.slots),
      });
      await compute.loadModel({ role: "actor", path: weights });
      return new LocalModel(directory, compute, tokenizer, template, stopTable);
    } catch (error) {
      await tokenizer.close();
      throw error;
    }
  }

  /** Answers to prompts as the model was trained on them. */
  async answer(prompts: readonly string[], sampling: SamplingOptions): Promise<Answer[]> {
    return this.#generate(await this.template.encode(this.tokenizer, prompts), sampling);
  }

  /** The next turn of a conversation, for a tokenizer with a chat template. */
  async reply(messages: readonly ChatMessage[], sampling: SamplingOptions): Promise<Answer> {
    const [text] = await this.tokenizer.applyChatTemplate([messages], { addGenerationPrompt: true });
    const [answer] = await this.#generate(
      await this.tokenizer.encode([text], { parseSpecial: true }),
      sampling,
    );
    return answer;
  }

  async close(): Promise<void> {
    await this.compute.close();
    await this.tokenizer.close();
  }

  async #generate(promptIds: readonly Int32Array[], sampling: SamplingOptions): Promise<Answer[]> {
    // A new draw each time: asked twice, a model may answer differently; the same command gives the same answers.
    const draw = this.#draws++;
    const prompts = promptIds.map((ids, promptIndex) => ({
      promptIndex,
      sampleIndex: 0,
      experienceId: `${draw}/${promptIndex}/0`,
      promptIds: ids,
    }));
    const rollouts = await this.compute.generateOnly({
      prompts,
      policyVersion: 0,
      sampling,
      stops: this.stops,
    });
    const texts = await this.tokenizer.decode(rollouts.map(({ responseIds }) => responseIds));
    return rollouts.map(({ responseIds, finishReason }, i) => ({
      text: texts[i],
      tokens: responseIds.length,
      finishReason,
    }));
  }
}

/** The prompt template of the run a model lies in: its config.yaml is one of the folders above. */
async function trainedTemplate(directory: string): Promise<string | undefined> {
  const { parseConfig } = await import("../config/load.js");
  for (let folder = dirname(directory), level = 0; level < 4; folder = dirname(folder), level++) {
    const text = await readFile(join(folder, "config.yaml"), "utf8").catch(() => undefined);
    if (text === undefined) continue;
    try {
      return parseConfig({ text, file: join(folder, "config.yaml") }).config.data.promptTemplate;
    } catch {
      return undefined; // some other config.yaml
    }
  }
  return undefined;
}
