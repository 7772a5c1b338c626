/** Thread entry: reads a user's model once before anything is trained, where its size delays no heartbeat. */
import { checkWeights } from "../models/checkpoint-dir.js";
import { readFolderJson, weightFiles } from "../models/model-files.js";
import { parseModelConfig, type Head } from "../models/model-spec.js";
import { dataError } from "../shared/errors.js";
import { threadFunction } from "../worker/thread-error.js";

export interface InspectTask {
  readonly directory: string;
  readonly head: Head;
  /** Where to put the weights as one float32 file when they lie in several. */
  readonly mergedFile: string;
}

export interface InspectedModel {
  /** Rows of the embedding: token ids must be below. */
  readonly vocabularySize: number;
  /** Longest sequence, tokens. */
  readonly contextTokens: number;
  /** One safetensors file with all weights: the model's own or `mergedFile`. */
  readonly weightsFile: string;
  /** Tensors left out. */
  readonly warnings: readonly string[];
}

/**
 * Checks config.json and every tensor of a Hugging Face model directory: architecture, names, shapes, finite values.
 * @throws {TroupeError} DATA naming file and field or tensor, what was expected and what came
 */
export const inspect = threadFunction(async (task: InspectTask): Promise<InspectedModel> => {
  const { directory, head, mergedFile } = task;
  const config = await readFolderJson(directory, "config.json");
  if (config === null) {
    throw dataError("it has no config.json; expected a Hugging Face model directory");
  }
  const spec = parseModelConfig(config, head);
  const files = await weightFiles(directory);
  const into = files.length === 1 ? null : mergedFile;
  const warnings = await checkWeights(files, spec, into);
  const { vocabularySize, contextTokens } = spec;
  return { vocabularySize, contextTokens, weightsFile: into ?? files[0], warnings };
});
