/** The turn marker of hh-rlhf and its descendants; an answer starts right after it. */
const ASSISTANT_TURN = "\n\nAssistant:";

export interface PromptAndAnswers {
  readonly prompt: string;
  readonly chosen: string;
  readonly rejected: string;
}

function commonPrefixLength(a: string, b: string): number {
  const limit = Math.min(a.length, b.length);
  let length = 0;
  while (length < limit && a.charCodeAt(length) === b.charCodeAt(length)) length++;
  return length;
}

/** End of the longest prefix of `shared` after which both texts go on with whitespace or with a new word. */
function wordBoundary(shared: string, shorterLength: number): number {
  const limit = Math.min(shared.length, shorterLength - 1); // both answers keep at least one character
  for (let cut = limit; cut > 0; cut--) {
    const isSpaceNext = /\s/.test(shared[cut] ?? "");
    const isSpaceBefore = /\s/.test(shared[cut - 1]);
    if (isSpaceNext && !isSpaceBefore) return cut;
  }
  return 0;
}

/**
 * Splits a pair of whole dialogues into the prompt they share and two answers.
 *
 *   prompt = longest common prefix that ends with "\n\nAssistant:"; failing that, the longest common prefix that ends
 *            at a word (whitespace goes with the answers, where byte-level tokenizers want it)
 *
 * @returns null when the two share no such prefix
 * @see Bai et al. 2022, arXiv:2204.05862 (hh-rlhf); TRL `extract_prompt` does the same at any common prefix
 */
export function extractPrompt(chosen: string, rejected: string): PromptAndAnswers | null {
  const shared = chosen.slice(0, commonPrefixLength(chosen, rejected));
  const turn = shared.lastIndexOf(ASSISTANT_TURN);
  const cut =
    turn === -1
      ? wordBoundary(shared, Math.min(chosen.length, rejected.length))
      : turn + ASSISTANT_TURN.length;
  if (cut === 0) return null;
  return { prompt: chosen.slice(0, cut), chosen: chosen.slice(cut), rejected: rejected.slice(cut) };
}
