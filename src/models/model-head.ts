import { SafetensorsFile } from "../shared/safetensors.js";
import { architectureIn, weightFiles } from "./model-files.js";
import type { Head } from "./model-spec.js";

/**
 * Which head the model of a Hugging Face folder has. Its architecture says so; where config.json names a backbone or
 * nothing, its weights do.
 * @throws {TroupeError} DATA when the folder's files cannot be read
 */
export async function headOf(folder: string): Promise<Head> {
  const name = (await architectureIn(folder)) ?? "";
  if (name.endsWith("ForSequenceClassification")) return "scalar";
  if (/(ForCausalLM|LMHeadModel)$/.test(name)) return "lm";
  for (const path of await weightFiles(folder)) {
    const file = await SafetensorsFile.open(path);
    await file.close();
    if (file.header.tensors.some((tensor) => tensor.name === "score.weight")) return "scalar";
  }
  return "lm";
}
