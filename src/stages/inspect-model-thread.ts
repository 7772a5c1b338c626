/** Thread entry: reads a user's model once before anything is trained, where its size delays no heartbeat. */
import { join } from "node:path";
import { tokenizerDifference } from "../data/compare-tokenizers.js";
import { checkWeights } from "../models/checkpoint-dir.js";
import { familyOf } from "../models/families.js";
import { fileInFolder, readFolderJson, weightFiles } from "../models/model-files.js";
import { parseModelConfig, type Head } from "../models/model-spec.js";
import { dataError } from "../shared/errors.js";
import { threadFunction } from "../worker/thread-error.js";

export interface InspectTask {
  readonly directory: string;
  readonly head: Head;
  /** Where to put the weights as one float32 file when they lie in several. */
  readonly mergedFile: string;
  /** The run's tokenizer, to be compared with the model's own. */
  readonly tokenizer: { readonly directory: string; readonly padId: number };
}

export interface InspectedModel {
  /** Rows of the embedding: token ids must be below. */
  readonly vocabularySize: number;
  /** Longest sequence, tokens. */
  readonly contextTokens: number;
  /** One safetensors file with all weights: the model's own or `mergedFile`. */
  readonly weightsFile: string;
  /** transformers' class of the model with the head asked for; config.json may name its backbone or nothing. */
  readonly architecture: string;
  /** The first token that the model's tokenizer and the run's do not share; null when they agree. */
  readonly tokenizerDifference: string | null;
  /** Tensors left out; what could not be checked. */
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
  const theirs = await fileInFolder(directory, TOKENIZER_FILE);
  const { directory: ours, padId } = task.tokenizer;
  const { vocabularySize, contextTokens } = spec;
  return {
    vocabularySize,
    contextTokens,
    weightsFile: into ?? files[0],
    architecture: familyOf(spec).architecture(spec),
    tokenizerDifference:
      theirs === null ? null : await tokenizerDifference(theirs, join(ours, TOKENIZER_FILE), padId),
    warnings: theirs === null ? [...warnings, NO_TOKENIZER] : warnings,
  };
});

const TOKENIZER_FILE = "tokenizer.json";
const NO_TOKENIZER = `has no ${TOKENIZER_FILE}, so only the size of its vocabulary was compared with the run's tokenizer`;
