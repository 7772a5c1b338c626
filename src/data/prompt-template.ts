import { configError } from "../shared/errors.js";
import type { TextTokenizer } from "./types.js";

const PLACEHOLDER = "{prompt}";

/**
 * Text around a prompt. The template is the operator's, so special tokens in it are control tokens; the prompt is a
 * user's, so special tokens in it are plain text. The same function serves training data and later chats, which
 * must see the same ids.
 */
export class PromptTemplate {
  readonly before: string;
  readonly after: string;

  /** @throws {TroupeError} CONFIG unless `{prompt}` occurs exactly once */
  constructor(readonly template: string) {
    const parts = template.split(PLACEHOLDER);
    if (parts.length !== 2) {
      throw configError(
        `data.promptTemplate ${JSON.stringify(template)} holds ${PLACEHOLDER} ${parts.length - 1} times; expected once`,
      );
    }
    [this.before, this.after] = parts;
  }

  render(prompt: string): string {
    return this.before + prompt + this.after;
  }

  /** Ids of rendered prompts, starting with bos where the tokenizer does so. */
  async encode(tokenizer: TextTokenizer, prompts: readonly string[]): Promise<Int32Array[]> {
    const { specialTokens } = tokenizer.info;
    const hasControl = [this.before, this.after].some((part) =>
      specialTokens.some((special) => part.includes(special)),
    );
    if (!hasControl)
      return tokenizer.encode(
        prompts.map((prompt) => this.render(prompt)),
        { addBos: true },
      );
    const [[before], [after], middles] = await Promise.all([
      tokenizer.encode([this.before], { parseSpecial: true, addBos: true }),
      tokenizer.encode([this.after], { parseSpecial: true }),
      tokenizer.encode(prompts),
    ]);
    return middles.map((middle) => Int32Array.from([...before, ...middle, ...after]));
  }
}
