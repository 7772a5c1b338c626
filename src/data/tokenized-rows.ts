import type { PromptTemplate } from "./prompt-template.js";
import {
  countSkip,
  type PreferencePair,
  type PreferenceRow,
  type PromptRow,
  type SftRow,
  type SkipCounts,
  type SkipReason,
  type TextTokenizer,
} from "./types.js";

/**
 * One row as ids. Prompt and answer are tokenized apart and then joined, so the prompt's ids are an exact prefix of
 * every sequence; that is also what the policy sees at generation time, where the answer follows finished prompt ids.
 */
export interface TokenizedRow {
  readonly index: number;
  readonly promptText: string;
  readonly promptIds: Int32Array;
  /** Answer ids, each ending in eos. */
  readonly chosen?: Int32Array;
  readonly rejected?: Int32Array;
}

export interface LengthLimits {
  readonly maxPromptTokens: number;
  /** Counts the eos token. */
  readonly maxResponseTokens: number;
}

/** Why rows of one phase fell out, with the lengths behind it, so that an error can say which knob to turn. */
export interface PhaseSkips {
  readonly counts: SkipCounts;
  readonly longPromptTokens: number[];
  readonly longAnswerTokens: number[];
}

export const makePhaseSkips = (): PhaseSkips => ({ counts: {}, longPromptTokens: [], longAnswerTokens: [] });

const isBlank = (text: string): boolean => text.trim() === "";
const needsOf = (phase: "sft" | "reward" | "ppo"): readonly ("chosen" | "rejected")[] =>
  phase === "ppo" ? [] : phase === "sft" ? ["chosen"] : ["chosen", "rejected"];

/** Why a row cannot serve a phase, by its text alone; null when it can. */
function textProblem(row: PreferenceRow, needs: readonly ("chosen" | "rejected")[]): SkipReason | null {
  if (isBlank(row.prompt)) return "empty-prompt";
  for (const key of needs) {
    const answer = row[key];
    if (answer === undefined) return key === "chosen" ? "no-chosen" : "no-rejected";
    if (isBlank(answer)) return "empty-answer";
  }
  return needs.includes("rejected") && row.chosen === row.rejected ? "identical-pair" : null;
}

async function encodeAnswers(
  rows: readonly PreferenceRow[],
  key: "chosen" | "rejected",
  tokenizer: TextTokenizer,
): Promise<Int32Array[]> {
  const encoded = await encodeByKind(rows, (group, parseSpecial) =>
    tokenizer.encode(
      group.map((row) => row[key] ?? ""),
      { parseSpecial },
    ),
  );
  return encoded.map((ids) => Int32Array.from([...ids, tokenizer.info.eosId]));
}

/** Encodes user text and template-rendered text each in its own way, keeping the order of rows. */
async function encodeByKind(
  rows: readonly PreferenceRow[],
  encode: (group: PreferenceRow[], isRendered: boolean) => Promise<Int32Array[]>,
): Promise<Int32Array[]> {
  const [plain, rendered] = [false, true].map((kind) =>
    rows.filter((row) => (row.isRendered ?? false) === kind),
  );
  const [plainIds, renderedIds] = [await encode(plain, false), await encode(rendered, true)];
  let nextPlain = 0;
  let nextRendered = 0;
  return rows.map((row) => (row.isRendered ? renderedIds[nextRendered++] : plainIds[nextPlain++]));
}

const sameIds = (a: Int32Array, b: Int32Array): boolean =>
  a.length === b.length && a.every((id, i) => id === b[i]);

/**
 * Tokenizes the rows of one phase. Rows that cannot serve it, or are too long, fall out and are counted; nothing is
 * ever cut short.
 */
export async function tokenizeRows(
  rows: readonly PreferenceRow[],
  phase: "sft" | "reward" | "ppo",
  template: PromptTemplate,
  tokenizer: TextTokenizer,
  limits: LengthLimits,
  skips: PhaseSkips,
): Promise<TokenizedRow[]> {
  const needs = needsOf(phase);
  const usable = rows.filter((row) => {
    const problem = textProblem(row, needs);
    if (problem !== null) countSkip(skips.counts, problem);
    return problem === null;
  });
  const prompts = await encodeByKind(usable, (group, isRendered) => {
    const texts = group.map((row) => row.prompt);
    return isRendered
      ? tokenizer.encode(texts, { parseSpecial: true, addBos: true })
      : template.encode(tokenizer, texts);
  });
  const chosen = needs.includes("chosen") ? await encodeAnswers(usable, "chosen", tokenizer) : null;
  const rejected = needs.includes("rejected") ? await encodeAnswers(usable, "rejected", tokenizer) : null;

  return usable.flatMap((row, i): TokenizedRow[] => {
    const promptIds = prompts[i];
    const answerTokens = Math.max(chosen?.[i].length ?? 0, rejected?.[i].length ?? 0);
    if (promptIds.length > limits.maxPromptTokens) {
      countSkip(skips.counts, "prompt-too-long");
      skips.longPromptTokens.push(promptIds.length);
      return [];
    }
    if (answerTokens > limits.maxResponseTokens) {
      countSkip(skips.counts, "answer-too-long");
      skips.longAnswerTokens.push(answerTokens);
      return [];
    }
    // Different texts can still be one id sequence, e.g. when both differ only in unknown words.
    if (chosen !== null && rejected !== null && sameIds(chosen[i], rejected[i])) {
      countSkip(skips.counts, "identical-pair");
      return [];
    }
    const promptText = row.isRendered ? row.prompt : template.render(row.prompt);
    return [{ index: row.index, promptText, promptIds, chosen: chosen?.[i], rejected: rejected?.[i] }];
  });
}

function join(prompt: Int32Array, answer: Int32Array): Int32Array {
  const ids = new Int32Array(prompt.length + answer.length);
  ids.set(prompt);
  ids.set(answer, prompt.length);
  return ids;
}

/**
 * ids = prompt + chosen + eos; lossMask is 1 on answer and eos tokens (`answer`) or on all tokens (`all`, as
 * DeepSpeed-Chat trains).
 */
export function toSftRow(row: TokenizedRow & { chosen: Int32Array }, lossOn: "answer" | "all"): SftRow {
  const ids = join(row.promptIds, row.chosen);
  const lossMask = new Uint8Array(ids.length).fill(1);
  if (lossOn === "answer") lossMask.fill(0, 0, row.promptIds.length);
  return { ids, lossMask };
}

export function toPreferencePair(
  row: TokenizedRow & { chosen: Int32Array; rejected: Int32Array },
): PreferencePair {
  return {
    chosen: join(row.promptIds, row.chosen),
    rejected: join(row.promptIds, row.rejected),
    promptTokens: row.promptIds.length,
  };
}

export function toPromptRow(row: TokenizedRow, promptIndex: number): PromptRow {
  return { promptIndex, promptIds: row.promptIds, promptText: row.promptText };
}
