/**
 * Thread entry: all that touches a tokenizer runs here, away from the event loop that answers heartbeats, where a
 * deadline can end it. Loads local files only.
 */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { TOKENIZER_FILES } from "../shared/tokenizer-file-names.js";
import { loadTokenizer, type PreTrainedTokenizer } from "./load-tokenizer.js";
import { makeStopTable, type StopTable } from "./stop-table.js";
import { tokenBytesOf } from "./token-bytes.js";
import type { EncodeOptions, TokenizerInfo } from "./types.js";

export interface OpenTask {
  readonly directory: string;
}
export interface EncodeTask extends OpenTask, EncodeOptions {
  readonly texts: readonly string[];
}
/** Ragged rows as two flat arrays: cheap to move between threads. */
export interface Ragged {
  readonly ids: Int32Array;
  readonly lengths: Int32Array;
}
export interface DecodeTask extends OpenTask {
  readonly rows: Ragged;
  readonly skipSpecialTokens: boolean;
}

export interface StopTableTask extends OpenTask {
  readonly stopStrings: readonly string[];
}

interface Opened {
  readonly tokenizer: PreTrainedTokenizer;
  readonly info: TokenizerInfo;
}

const opened = new Map<string, Promise<Opened>>();

/** True when the tokenizer's own post-processor puts bos first. */
function startsWithBos(tokenizer: PreTrainedTokenizer, bosId: number | null): boolean {
  if (bosId === null) return false;
  const plain = tokenizer.encode("a", { add_special_tokens: false });
  const whole = tokenizer.encode("a", { add_special_tokens: true });
  // Where bos is the unknown token as well, the text itself may begin with its id.
  return whole.length > plain.length && whole[0] === bosId && (plain[0] !== bosId || whole[1] === bosId);
}

async function load(directory: string): Promise<Opened> {
  const tokenizer = await loadTokenizer(directory);
  if (typeof tokenizer.eos_token_id !== "number") {
    throw new Error(
      `its tokenizer_config.json names no eos_token that is in the vocabulary (eos_token: ${String(tokenizer.eos_token)})`,
    );
  }
  const config = tokenizer.config as { pad_token?: unknown };
  const eosId = tokenizer.eos_token_id;
  const hasOwnPad = (config.pad_token ?? null) !== null && typeof tokenizer.pad_token_id === "number";
  const padId = hasOwnPad ? tokenizer.pad_token_id : eosId;
  const bosId = typeof tokenizer.bos_token_id === "number" ? tokenizer.bos_token_id : null;
  let largestId = 0;
  for (const id of tokenizer.get_vocab().values()) largestId = Math.max(largestId, id);
  const info: TokenizerInfo = {
    directory,
    vocabSize: largestId + 1,
    eosId,
    eosToken: tokenizer.eos_token,
    bosId,
    addsBos: startsWithBos(tokenizer, bosId),
    padId,
    padIsEos: padId === eosId,
    specialTokens: tokenizer.all_special_tokens,
    hasChatTemplate: tokenizer.chat_template !== null,
    files: TOKENIZER_FILES.map((name) => join(directory, name)).filter((path) => existsSync(path)),
  };
  return { tokenizer, info };
}

function openedAt(directory: string): Promise<Opened> {
  let entry = opened.get(directory);
  if (entry === undefined) {
    entry = load(directory);
    opened.set(directory, entry);
  }
  return entry;
}

/**
 * Cuts a text inside every special token it contains, after the token's first character, so that no piece holds a
 * whole one and each is tokenized as plain text. The pieces join to the text.
 */
export function piecesWithoutSpecials(text: string, specialTokens: readonly string[]): string[] {
  const cuts = new Set<number>();
  for (const special of specialTokens) {
    const first = String.fromCodePoint(special.codePointAt(0) ?? 0).length;
    if (special.length === first) continue; // a one-character special token cannot be cut
    for (let at = text.indexOf(special); at !== -1; at = text.indexOf(special, at + 1)) cuts.add(at + first);
  }
  const bounds = [0, ...[...cuts].sort((a, b) => a - b), text.length];
  return bounds.slice(1).map((end, i) => text.slice(bounds[i], end));
}

function idsOf({ tokenizer, info }: Opened, text: string, options: EncodeOptions): number[] {
  const encode = (piece: string): number[] =>
    piece === "" ? [] : tokenizer.encode(piece, { add_special_tokens: false });
  const ids = options.parseSpecial
    ? encode(text)
    : piecesWithoutSpecials(text, info.specialTokens).flatMap(encode);
  const isBosFirst = ids[0] === info.bosId; // a chat template may have written it already
  return options.addBos && info.addsBos && info.bosId !== null && !isBosFirst ? [info.bosId, ...ids] : ids;
}

export async function open({ directory }: OpenTask): Promise<TokenizerInfo> {
  return (await openedAt(directory)).info;
}

export async function encode(task: EncodeTask): Promise<Ragged> {
  const entry = await openedAt(task.directory);
  const rows = task.texts.map((text) => idsOf(entry, text, task));
  return { ids: Int32Array.from(rows.flat()), lengths: Int32Array.from(rows, (row) => row.length) };
}

export async function decode(task: DecodeTask): Promise<string[]> {
  const { tokenizer } = await openedAt(task.directory);
  const { ids, lengths } = task.rows;
  let start = 0;
  return Array.from(lengths, (length) => {
    const row = Array.from(ids.subarray(start, start + length));
    start += length;
    if (row.length === 0) return "";
    // Clean-up rewrites spaces before punctuation: good for show, wrong for anything that compares text.
    return tokenizer.decode(row, {
      skip_special_tokens: task.skipSpecialTokens,
      clean_up_tokenization_spaces: false,
    });
  });
}

export async function stopTable({ directory, stopStrings }: StopTableTask): Promise<StopTable> {
  const json: unknown = JSON.parse(await readFile(join(directory, "tokenizer.json"), "utf8"));
  return makeStopTable(stopStrings, tokenBytesOf(json));
}
