/** Takes a model directory of the user's into a run, after checking that the run can use it. */
import { mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Config } from "../config/schema.js";
import type { ModelSource } from "../coordinator/model-folders.js";
import type { TokenizerInfo } from "../data/types.js";
import { configError, dataError, TroupeError } from "../shared/errors.js";
import { ComputePool } from "../worker/compute-pool.js";
import type * as inspectThread from "./inspect-model-thread.js";
import type { InspectedModel } from "./inspect-model-thread.js";
import type { RunContext } from "./run-context.js";

export interface AdmitRequest {
  /** Name among the run's artifacts. */
  readonly name: string;
  /** The setting that names the directory, for messages. */
  readonly field: "model.path" | "reward.path";
  readonly directory: string;
  readonly head: "lm" | "scalar";
}

/**
 * Reads the whole model once, so that what is wrong with it is said before training starts and not by a worker in the
 * middle of it. Weights in several files become one under DIR/artifacts.
 * @throws {TroupeError} DATA when the directory is no usable model, its vocabulary is smaller than the tokenizer's, or
 *   it comes with a tokenizer that means other tokens by the same ids
 * @throws {TroupeError} CONFIG when the run's sequences are longer than the model can read
 */
export async function admitModel(run: RunContext, request: AdmitRequest): Promise<ModelSource> {
  const { name, field, directory, head } = request;
  const folder = await stat(directory).catch(() => undefined);
  if (folder?.isDirectory() !== true) {
    const what = folder === undefined ? "does not exist" : "is not a directory";
    throw dataError(`${field} ${directory} ${what}; expected a Hugging Face model directory`);
  }
  const artifacts = join(run.runDir, "artifacts");
  await mkdir(artifacts, { recursive: true });
  const pool = new ComputePool<typeof inspectThread>("src/stages/inspect-model-thread");
  let model: InspectedModel;
  try {
    model = await pool.run("inspect", {
      directory,
      head,
      mergedFile: join(artifacts, `${name}.safetensors`),
      tokenizer: { directory: run.tokenizer.info.directory, padId: run.tokenizer.info.padId },
    });
  } catch (error) {
    throw cannotBeUsed(field, directory, error);
  } finally {
    await pool.close();
  }
  checkVocabulary(request, model, run.tokenizer.info);
  checkContext(request, model, run.config);
  for (const warning of model.warnings) run.logger.info(`${field} ${directory}: ${warning}`);
  const source = await run.models.adopt(name, directory, model.weightsFile);
  return { ...source, hfConfigJson: withArchitecture(source.hfConfigJson, model.architecture) };
}

/** What is wrong with a folder, with the setting that names it. */
export function cannotBeUsed(field: AdmitRequest["field"], directory: string, error: unknown): unknown {
  if (!(error instanceof TroupeError)) return error;
  const { code, message, cause } = error;
  return new TroupeError(code, `${field} ${directory} cannot be used: ${message}`, { cause });
}

function checkVocabulary(
  { field, directory }: AdmitRequest,
  model: InspectedModel,
  tokenizer: TokenizerInfo,
): void {
  const isTooSmall = tokenizer.vocabSize > model.vocabularySize;
  if (!isTooSmall && model.tokenizerDifference === null) return;
  const problem = isTooSmall
    ? `the model has embeddings for ${model.vocabularySize} tokens (vocab_size), but the tokenizer of ` +
      `${tokenizer.directory} has ids up to ${tokenizer.vocabSize - 1} (${tokenizer.vocabSize} tokens)`
    : `the model was made with another tokenizer than the run's: ${model.tokenizerDifference}`;
  const remedy =
    field === "model.path"
      ? "use the model's own tokenizer (model.tokenizer: {type: from-model}), or a model made with this one"
      : "use a reward model trained with the same tokenizer as the policy";
  throw dataError(`${field} ${directory}: ${problem}; ${remedy}`);
}

/** The config of a model that may be saved with either head: its class, which a copy of the backbone does not name. */
function withArchitecture(hfConfigJson: string, architecture: string): string {
  const config = JSON.parse(hfConfigJson) as Record<string, unknown>;
  return JSON.stringify({ ...config, architectures: [architecture] });
}

function checkContext({ field, directory }: AdmitRequest, model: InspectedModel, config: Config): void {
  const { stages, data, generation } = config;
  const mustFit = (answerField: string, answerTokens: number): void => {
    const total = data.maxPromptTokens + answerTokens;
    if (total <= model.contextTokens) return;
    throw configError(
      `data.maxPromptTokens ${data.maxPromptTokens} + ${answerField} ${answerTokens} = ${total} tokens do not fit the ` +
        `${model.contextTokens} tokens that ${field} ${directory} can read; lower one of them by ${total - model.contextTokens}`,
    );
  };
  if (stages.includes("ppo")) mustFit("generation.maxNewTokens", generation.maxNewTokens);
  if (stages.some((stage) => stage !== "ppo")) mustFit("data.maxResponseTokens", data.maxResponseTokens);
}
