/**
 * Child process entry: renders chat templates. A template is a program (Jinja) that may come from a stranger and can
 * exhaust the heap, which ends the process it runs in, a thread's host included; so it gets a process of its own.
 */
import { loadTokenizer, type PreTrainedTokenizer } from "./load-tokenizer.js";
import type { ChatMessage } from "./types.js";

export interface RenderRequest {
  readonly id: number;
  readonly directory: string;
  readonly conversations: readonly (readonly ChatMessage[])[];
  readonly addGenerationPrompt: boolean;
}

export type RenderReply =
  | { readonly id: number; readonly texts: readonly string[] }
  | { readonly id: number; readonly error: string };

let loaded: { directory: string; tokenizer: PreTrainedTokenizer } | null = null;

async function tokenizerAt(directory: string): Promise<PreTrainedTokenizer> {
  if (loaded?.directory !== directory) {
    loaded = {
      directory,
      tokenizer: await loadTokenizer(directory),
    };
  }
  return loaded.tokenizer;
}

async function render(request: RenderRequest): Promise<RenderReply> {
  const { id, directory, conversations, addGenerationPrompt } = request;
  try {
    const tokenizer = await tokenizerAt(directory);
    const texts = conversations.map((messages) =>
      tokenizer.apply_chat_template([...messages], {
        tokenize: false,
        add_generation_prompt: addGenerationPrompt,
      }),
    );
    return { id, texts };
  } catch (error) {
    return { id, error: error instanceof Error ? error.message : String(error) };
  }
}

process.on("message", (request: RenderRequest) => {
  void render(request).then((reply) => process.send?.(reply));
});
// The parent went away: nobody is left to answer.
process.on("disconnect", () => process.exit());
