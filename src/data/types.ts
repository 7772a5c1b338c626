/**
 * What the data layer hands to the stages. Everything is host arrays of token ids: no tensors, no padding.
 */

import type { StopTable } from "./stop-table.js";

/** One turn of a conversation, as chat templates take it. */
export interface ChatMessage {
  readonly role: string;
  readonly content: string;
}

/** One usable row of the file as text. `chosen` and `rejected` never repeat the prompt. */
export interface PreferenceRow {
  /** 0-based position among the rows of the file (blank lines are not rows); what the phase split permutes. */
  readonly index: number;
  readonly prompt: string;
  readonly chosen?: string;
  readonly rejected?: string;
  /** True when a chat template wrote the text, so its special tokens are control tokens and not user text. */
  readonly isRendered?: boolean;
}

/** A demonstration: prompt + chosen + eos. */
export interface SftRow {
  /** `[T]` */
  readonly ids: Int32Array;
  /** `[T]` 1 where the token is a target of the loss; the first token of a sequence is never predicted. */
  readonly lossMask: Uint8Array;
}

/** A comparison. Both sequences are prompt + answer + eos and share their first `promptTokens` ids. */
export interface PreferencePair {
  readonly chosen: Int32Array;
  readonly rejected: Int32Array;
  readonly promptTokens: number;
}

/** A prompt to answer. `promptIndex` numbers train prompts from 0 and goes on through the eval prompts. */
export interface PromptRow {
  readonly promptIndex: number;
  readonly promptIds: Int32Array;
  readonly promptText: string;
}

/** Rows of a phase: those trained on and those held out. */
export interface Held<Row> {
  readonly train: readonly Row[];
  readonly eval: readonly Row[];
}

export type PhaseName = "sft" | "reward" | "ppo";
export const PHASES: readonly PhaseName[] = ["sft", "reward", "ppo"];

/** Why a row was not used; every row of the file is used by one phase or counted under one of these. */
export type SkipReason =
  | "invalid-json"
  | "invalid-utf8"
  | "line-too-long"
  | "not-an-object"
  | "missing-column"
  | "wrong-type"
  | "lone-surrogate"
  | "special-token-in-message"
  | "template-changes-prompt"
  | "no-common-prompt"
  | "identical-pair"
  | "empty-prompt"
  | "empty-answer"
  | "no-chosen"
  | "no-rejected"
  | "prompt-too-long"
  | "answer-too-long"
  | "stage-not-run";

export type SkipCounts = Partial<Record<SkipReason, number>>;

/** Adds one skipped row. */
export function countSkip(counts: SkipCounts, reason: SkipReason, by = 1): void {
  counts[reason] = (counts[reason] ?? 0) + by;
}

export interface DataReport {
  readonly path: string;
  readonly format: string;
  /** Rows read: `rows = used.sft + used.reward + used.ppo + Σ skipped`. */
  readonly rows: number;
  /** Used rows by phase, train and eval together. */
  readonly used: Readonly<Record<PhaseName, number>>;
  readonly evalRows: Readonly<Record<PhaseName, number>>;
  readonly skipped: Readonly<SkipCounts>;
  /** Used rows whose prompt text an earlier used row already had. */
  readonly duplicatePrompts: number;
  /** One line for the log. */
  readonly summary: string;
}

export interface TokenizerInfo {
  /** Absolute path of the tokenizer's directory. */
  readonly directory: string;
  /** Largest token id + 1: the smallest embedding table that fits. */
  readonly vocabSize: number;
  readonly eosId: number;
  readonly eosToken: string;
  readonly bosId: number | null;
  /** True when the tokenizer itself starts a sequence with bos. */
  readonly addsBos: boolean;
  readonly padId: number;
  /** True when the tokenizer has no pad token of its own, so padId = eosId; masks must then go by length, never by id. */
  readonly padIsEos: boolean;
  readonly specialTokens: readonly string[];
  readonly hasChatTemplate: boolean;
  /** Absolute paths of the files that make up the tokenizer; copy them beside an exported model. */
  readonly files: readonly string[];
}

export interface EncodeOptions {
  /**
   * Read special tokens written in the text as control tokens. Off by default: `<|endoftext|>` typed by a user is
   * tokenized as the characters it is made of.
   */
  readonly parseSpecial?: boolean;
  /** Start with bos where the tokenizer does so itself. @default false */
  readonly addBos?: boolean;
}

export interface DecodeOptions {
  /** Leave special tokens (eos, pad) out of the text. @default true */
  readonly skipSpecialTokens?: boolean;
}

/** Text to ids and back. */
export interface TextTokenizer {
  readonly info: TokenizerInfo;
  encode(texts: readonly string[], options?: EncodeOptions): Promise<Int32Array[]>;
  decode(sequences: readonly (Int32Array | readonly number[])[], options?: DecodeOptions): Promise<string[]>;
  /** Renders conversations with the tokenizer's chat template, to text. */
  applyChatTemplate(
    conversations: readonly (readonly ChatMessage[])[],
    options?: { readonly addGenerationPrompt?: boolean },
  ): Promise<string[]>;
  /** What finds stop strings in token ids. @throws {TroupeError} DATA for a vocabulary whose bytes are not known */
  stopTable(stopStrings: readonly string[]): Promise<StopTable>;
  close(): Promise<void>;
}
