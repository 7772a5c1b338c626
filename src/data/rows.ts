/**
 * Turns parsed JSON lines into rows of one format. The format is settled once per file, from its first readable row
 * and the configured column names; a later row that lacks one of the columns is a bad row.
 *
 *   prompt, chosen, rejected   comparisons with their prompt
 *   chosen, rejected           whole dialogues; the prompt is what they share (hh-rlhf)
 *   prompt, chosen             demonstrations (also `prompt` + `completion` by way of data.columns)
 *   prompt                     prompts only
 *   messages                   conversations; the last assistant turn is the answer
 *
 * `prompt`, `chosen` and `rejected` may also be arrays of `{role, content}`, which the chat template renders.
 */
import { resolve } from "node:path";
import type { Config } from "../config/schema.js";
import { dataError } from "../shared/errors.js";
import { extractPrompt } from "./implicit-prompt.js";
import { readJsonLines } from "./jsonl.js";
import {
  countSkip,
  type ChatMessage,
  type PreferenceRow,
  type SkipCounts,
  type SkipReason,
} from "./types.js";

export type DataConfig = Config["data"];
type Columns = DataConfig["columns"];

export type RowFormat =
  "prompt+chosen+rejected" | "chosen+rejected" | "prompt+chosen" | "prompt" | "messages";

/** A row whose text a chat template has still to render. `chosen` and `rejected` are the answer turns only. */
export interface ChatRow {
  readonly index: number;
  readonly prompt: readonly ChatMessage[];
  readonly chosen?: readonly ChatMessage[];
  readonly rejected?: readonly ChatMessage[];
}

export interface ReadRows {
  readonly format: RowFormat;
  /** Rows in the file (or data.maxRows), good and bad. */
  readonly rowCount: number;
  readonly textRows: readonly PreferenceRow[];
  readonly chatRows: readonly ChatRow[];
  readonly skipped: SkipCounts;
}

/** Rows that break the file's own format; `data.onBadRow` decides. The other reasons are always counted. */
const MALFORMED: ReadonlySet<SkipReason> = new Set([
  "invalid-json",
  "invalid-utf8",
  "line-too-long",
  "not-an-object",
  "missing-column",
  "wrong-type",
  "lone-surrogate",
]);

class BadRow extends Error {
  constructor(
    readonly reason: SkipReason,
    message: string,
  ) {
    super(message);
  }
}

type Fields = Readonly<Record<string, unknown>>;

const typeName = (value: unknown): string =>
  value === null ? "null" : Array.isArray(value) ? "an array" : `a ${typeof value}`;
const has = (fields: Fields, column: string): boolean => Object.hasOwn(fields, column);
const isWellFormed = (text: string): boolean => !/\p{Surrogate}/u.test(text);

function toFields(value: unknown): Fields {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Fields;
  throw new BadRow("not-an-object", `the row is ${typeName(value)}; expected an object with named columns`);
}

/** @throws {TroupeError} DATA listing the columns the file has */
function detectFormat(fields: Fields, columns: Columns, path: string): RowFormat {
  const [prompt, chosen, rejected, messages] = (["prompt", "chosen", "rejected", "messages"] as const).map(
    (key) => has(fields, columns[key]),
  );
  const found = Object.keys(fields).join(", ") || "none";
  // A renamed column that is not there must not quietly turn the file into another format.
  for (const key of ["prompt", "chosen", "rejected", "messages"] as const) {
    if (columns[key] !== key && !has(fields, columns[key])) {
      throw dataError(
        `${path}: data.columns.${key} names column "${columns[key]}", which the file does not have; it has: ${found}`,
      );
    }
  }
  if (prompt && chosen && rejected) return "prompt+chosen+rejected";
  if (chosen && rejected) return "chosen+rejected";
  if (prompt && chosen) return "prompt+chosen";
  if (messages) return "messages";
  if (prompt) return "prompt";
  throw dataError(
    `${path}: no usable columns; it has: ${found}. Expected "${columns.chosen}" and "${columns.rejected}" (with or ` +
      `without "${columns.prompt}"), or "${columns.prompt}", or "${columns.messages}"; name them in data.columns`,
  );
}

function checkText(text: string, column: string): string {
  if (isWellFormed(text)) return text;
  throw new BadRow("lone-surrogate", `column "${column}" holds half of a UTF-16 pair, which is not text`);
}

function toMessages(value: readonly unknown[], column: string): ChatMessage[] {
  return value.map((item, i): ChatMessage => {
    const { role, content } = (typeof item === "object" && item !== null ? item : {}) as Record<
      string,
      unknown
    >;
    if (typeof role !== "string" || typeof content !== "string") {
      throw new BadRow(
        "wrong-type",
        `column "${column}", message ${i}: expected {role: string, content: string}`,
      );
    }
    return { role, content: checkText(content, column) };
  });
}

/** Text or messages of a column; null and absence read as undefined. */
function cellOf(fields: Fields, column: string): string | ChatMessage[] | undefined {
  const value = has(fields, column) ? fields[column] : undefined;
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string") return checkText(value, column);
  if (Array.isArray(value)) return toMessages(value, column);
  throw new BadRow(
    "wrong-type",
    `column "${column}" is ${typeName(value)}; expected text or an array of messages`,
  );
}

function required(cell: string | ChatMessage[] | undefined, column: string): string | ChatMessage[] {
  if (cell !== undefined) return cell;
  throw new BadRow("missing-column", `column "${column}" is missing or null`);
}

const sameMessage = (a: ChatMessage, b: ChatMessage): boolean => a.role === b.role && a.content === b.content;
const sameMessages = (a: readonly ChatMessage[], b: readonly ChatMessage[]): boolean =>
  a.length === b.length && a.every((message, i) => sameMessage(message, b[i]));

function splitChatPair(index: number, chosen: ChatMessage[], rejected: ChatMessage[]): ChatRow {
  if (sameMessages(chosen, rejected)) throw new BadRow("identical-pair", "chosen and rejected are the same");
  let shared = 0;
  while (shared < Math.min(chosen.length, rejected.length) && sameMessage(chosen[shared], rejected[shared]))
    shared++;
  if (shared === 0) throw new BadRow("no-common-prompt", "chosen and rejected share no first message");
  return {
    index,
    prompt: chosen.slice(0, shared),
    chosen: chosen.slice(shared),
    rejected: rejected.slice(shared),
  };
}

function splitConversation(index: number, messages: ChatMessage[]): ChatRow {
  const last = messages.length - 1;
  if (last < 0) throw new BadRow("empty-prompt", "no messages");
  if (messages[last].role !== "assistant") return { index, prompt: messages };
  if (last === 0) throw new BadRow("empty-prompt", "an assistant turn with nothing before it");
  return { index, prompt: messages.slice(0, last), chosen: messages.slice(last) };
}

/** One row in the file's format. @throws {BadRow} */
function parseRow(
  value: unknown,
  index: number,
  format: RowFormat,
  columns: Columns,
): PreferenceRow | ChatRow {
  const fields = toFields(value);
  const cell = (key: keyof Columns): string | ChatMessage[] | undefined => cellOf(fields, columns[key]);
  if (format === "messages") {
    const messages = required(cell("messages"), columns.messages);
    if (typeof messages === "string")
      throw new BadRow("wrong-type", `column "${columns.messages}" is text; expected messages`);
    return splitConversation(index, messages);
  }
  if (format === "chosen+rejected") {
    const chosen = required(cell("chosen"), columns.chosen);
    const rejected = required(cell("rejected"), columns.rejected);
    if (typeof chosen !== "string" && typeof rejected !== "string")
      return splitChatPair(index, chosen, rejected);
    if (typeof chosen !== typeof rejected)
      throw new BadRow("wrong-type", "one answer is text and the other messages");
    if (chosen === rejected) throw new BadRow("identical-pair", "chosen and rejected are the same");
    const parts = extractPrompt(chosen as string, rejected as string);
    if (parts === null) throw new BadRow("no-common-prompt", "chosen and rejected share no prompt");
    return { index, ...parts };
  }
  const prompt = required(cell("prompt"), columns.prompt);
  const chosen = format === "prompt" ? undefined : cell("chosen");
  const rejected = format === "prompt+chosen+rejected" ? cell("rejected") : undefined;
  if (typeof prompt !== "string") {
    // TRL allows a conversational prompt with a plain-text answer: read it as one assistant turn.
    const asTurns = (answer: string | ChatMessage[] | undefined): ChatMessage[] | undefined =>
      typeof answer === "string" ? [{ role: "assistant", content: answer }] : answer;
    return { index, prompt, chosen: asTurns(chosen), rejected: asTurns(rejected) };
  }
  if (typeof (chosen ?? "") !== "string" || typeof (rejected ?? "") !== "string") {
    throw new BadRow("wrong-type", "the prompt is text and an answer is messages; expected both of one kind");
  }
  return { index, prompt, chosen: chosen as string | undefined, rejected: rejected as string | undefined };
}

/**
 * Reads the rows of `data.path`.
 * @throws {TroupeError} DATA with path and line number for a malformed row under `onBadRow: error`; for a file without
 *   rows or without usable columns; and whatever `readJsonLines` throws
 */
export async function readRows(data: DataConfig, signal?: AbortSignal): Promise<ReadRows> {
  const path = resolve(data.path);
  const textRows: PreferenceRow[] = [];
  const chatRows: ChatRow[] = [];
  const skipped: SkipCounts = {};
  let format: RowFormat | null = null;
  let rowCount = 0;

  const skip = (line: number, reason: SkipReason, message: string): void => {
    if (MALFORMED.has(reason) && data.onBadRow === "error") {
      throw dataError(
        `${path}, line ${line}: ${message}. Mend the line, or set data.onBadRow: skip to count and pass over such rows`,
      );
    }
    countSkip(skipped, reason);
  };

  for await (const line of readJsonLines(path, { signal })) {
    const index = rowCount++;
    if (line.kind === "bad") {
      // A file that starts with a JSON array is the commonest mistake and fails on every line.
      skip(line.line, line.reason, line.message);
    } else {
      try {
        const fields = toFields(line.value);
        format ??= detectFormat(fields, data.columns, path);
        const row = parseRow(fields, index, format, data.columns);
        if (typeof row.prompt === "string") textRows.push(row as PreferenceRow);
        else chatRows.push(row as ChatRow);
      } catch (error) {
        if (!(error instanceof BadRow)) throw error;
        skip(line.line, error.reason, error.message);
      }
    }
    if (rowCount === data.maxRows) break;
  }
  if (rowCount === 0) throw dataError(`data.path ${path} holds no rows, only blank lines`);
  if (format === null) {
    const reasons = Object.entries(skipped)
      .map(([reason, count]) => `${reason} ${count}`)
      .join(", ");
    throw dataError(
      `data.path ${path}: none of its ${rowCount} rows can be read (${reasons}); expected one JSON object per line`,
    );
  }
  return { format, rowCount, textRows, chatRows, skipped };
}
