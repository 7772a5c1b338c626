import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { Piscina } from "piscina";
import type { Config } from "../config/schema.js";
import { configError, dataError, errorCodeOf } from "../shared/errors.js";
import { builtFile } from "../shared/paths.js";
import type { TrainedTokenizer, TrainTask } from "./train-tokenizer-thread.js";

/**
 * Trains a byte-level BPE on all readable rows of `data.path`, in a thread, and writes it to `directory`. The same
 * rows give the same files.
 * @throws {TroupeError} DATA as `readRows` throws
 */
export async function trainTokenizer(task: TrainTask): Promise<TrainedTokenizer> {
  const pool = new Piscina({
    filename: builtFile("src/data/train-tokenizer-thread"),
    maxThreads: 1,
    atomics: "disabled",
  });
  try {
    return (await pool.run(task, { name: "train" })) as TrainedTokenizer;
  } catch (error) {
    // Crossing threads keeps an error's fields but not its class.
    const { message, code } = error as Error & { code?: string };
    if (code === "CONFIG") throw configError(message);
    throw errorCodeOf(error) !== "INTERNAL" ? error : dataError(message, { cause: error });
  } finally {
    await pool.destroy();
  }
}

/**
 * The directory of the run's tokenizer as `model.tokenizer` says: the model's own, a given one, or one trained now
 * and written to `trainedDirectory`.
 * @throws {TroupeError} CONFIG when the tokenizer should come from a model and none is given
 * @throws {TroupeError} DATA when the directory is not there
 */
export async function resolveTokenizerDirectory(
  model: Config["model"],
  data: Config["data"],
  trainedDirectory: string,
): Promise<string> {
  const { tokenizer } = model;
  switch (tokenizer.type) {
    case "from-model":
      if (model.path === null) {
        throw configError(
          "model.tokenizer is from-model but model.path is null; set model.path, or model.tokenizer to {type: path, path: …} or {type: train}",
        );
      }
      await requireDirectory("model.path", model.path);
      return resolve(model.path);
    case "path":
      await requireDirectory("model.tokenizer.path", tokenizer.path);
      return resolve(tokenizer.path);
    case "train":
      await trainTokenizer({
        data,
        vocabularySize: tokenizer.vocabularySize,
        directory: resolve(trainedDirectory),
      });
      return resolve(trainedDirectory);
  }
}

async function requireDirectory(field: string, path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory() === true) return;
  const what = found === undefined ? "does not exist" : "is not a directory";
  throw dataError(
    `${field} ${resolve(path)} ${what}; expected a Hugging Face ${field === "model.path" ? "model" : "tokenizer"} directory`,
  );
}
