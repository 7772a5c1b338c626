/** Opens a tokenizer of a local directory; used inside threads and child processes only. */
import { AutoTokenizer, env, type PreTrainedTokenizer } from "@huggingface/transformers";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

export type { PreTrainedTokenizer };

env.allowRemoteModels = false;
env.allowLocalModels = true;
env.useFSCache = false;

export async function loadTokenizer(directory: string): Promise<PreTrainedTokenizer> {
  const tokenizer = await AutoTokenizer.from_pretrained(directory, { local_files_only: true });
  // Newer versions of transformers (Python) write the template beside tokenizer_config.json, where it then takes precedence.
  const template = await readFile(join(directory, "chat_template.jinja"), "utf8").catch(() => undefined);
  if (template !== undefined) tokenizer.chat_template = template;
  return tokenizer;
}
