import type { ChatRow } from "./rows.js";
import {
  countSkip,
  type ChatMessage,
  type PreferenceRow,
  type SkipCounts,
  type TextTokenizer,
} from "./types.js";

/** An answer as rendered, without the eos the template may have put at its end: the data layer adds exactly one. */
function withoutEos(answer: string, eosToken: string): string {
  const trimmed = answer.trimEnd();
  return trimmed.endsWith(eosToken) ? trimmed.slice(0, -eosToken.length) : answer;
}

/**
 * Renders conversations to text rows with the tokenizer's chat template.
 *
 *   prompt = template(prompt turns, generation prompt)      answer = template(prompt + answer turns) without that prefix
 *
 * A row is skipped (counted) when a message holds a special token, which the template would turn into a control
 * token, or when the template rewrites the prompt once an answer follows, so that no prefix is left to cut at.
 */
export async function renderChatRows(
  rows: readonly ChatRow[],
  tokenizer: TextTokenizer,
  skipped: SkipCounts,
): Promise<PreferenceRow[]> {
  const { specialTokens, eosToken } = tokenizer.info;
  const isClean = (messages: readonly ChatMessage[] = []): boolean =>
    messages.every(({ content }) => !specialTokens.some((special) => content.includes(special)));
  const clean = rows.filter((row) => isClean(row.prompt) && isClean(row.chosen) && isClean(row.rejected));
  if (clean.length < rows.length) countSkip(skipped, "special-token-in-message", rows.length - clean.length);
  if (clean.length === 0) return [];

  const prompts = await tokenizer.applyChatTemplate(
    clean.map((row) => row.prompt),
    { addGenerationPrompt: true },
  );
  const renderAnswers = async (key: "chosen" | "rejected"): Promise<Map<number, string | null>> => {
    const answered = clean.flatMap((row, at) =>
      row[key] === undefined ? [] : [{ at, messages: [...row.prompt, ...row[key]] }],
    );
    const texts = await tokenizer.applyChatTemplate(answered.map(({ messages }) => messages));
    return new Map(
      answered.map(({ at }, i) => {
        const isPrefix = texts[i].startsWith(prompts[at]);
        return [at, isPrefix ? withoutEos(texts[i].slice(prompts[at].length), eosToken) : null];
      }),
    );
  };
  const chosen = await renderAnswers("chosen");
  const rejected = await renderAnswers("rejected");
  return clean.flatMap((row, at): PreferenceRow[] => {
    const answers = { chosen: chosen.get(at), rejected: rejected.get(at) };
    if (answers.chosen === null || answers.rejected === null) {
      countSkip(skipped, "template-changes-prompt");
      return [];
    }
    return [
      {
        index: row.index,
        prompt: prompts[at],
        chosen: answers.chosen,
        rejected: answers.rejected,
        isRendered: true,
      },
    ];
  });
}
