/**
 * Streams a JSONL file (plain or gzip, told by its magic bytes), one object per line.
 *
 * A bad line is a value here, not an exception: the caller owns the policy. What no policy can mend (missing file,
 * truncated gzip, a file that is not JSONL at all) throws. Memory is bounded by the line cap, also for a gzip bomb.
 */
import { createReadStream } from "node:fs";
import { open, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { TextDecoder } from "node:util";
import { createGunzip } from "node:zlib";
import { dataError } from "../shared/errors.js";
import type { SkipReason } from "./types.js";

/** Longest line kept in memory, in bytes. Real rows are kilobytes; 16 MiB leaves room for whole books. */
const MAX_LINE_BYTES = 16 * 1024 * 1024;

export type JsonLine =
  | { readonly line: number; readonly kind: "value"; readonly value: unknown }
  | { readonly line: number; readonly kind: "bad"; readonly reason: SkipReason; readonly message: string };

export interface JsonLinesOptions {
  /** @default MAX_LINE_BYTES */
  readonly maxLineBytes?: number;
  readonly signal?: AbortSignal;
}

const NEWLINE = 0x0a;
const startsWith = (head: Uint8Array, bytes: readonly number[]): boolean =>
  bytes.every((byte, i) => head[i] === byte);

/** First bytes of formats people pass by mistake, and what to do about each. */
const FOREIGN: readonly { magic: readonly number[]; what: string }[] = [
  { magic: [0x50, 0x41, 0x52, 0x31], what: "a Parquet file; write it out as JSONL first" },
  { magic: [0x50, 0x4b, 0x03, 0x04], what: "a zip archive; unpack it first" },
  { magic: [0x28, 0xb5, 0x2f, 0xfd], what: "zstd-compressed; decompress it, or compress it with gzip" },
  { magic: [0x42, 0x5a, 0x68], what: "bzip2-compressed; decompress it, or compress it with gzip" },
  { magic: [0xff, 0xfe], what: "UTF-16; convert it to UTF-8" },
  { magic: [0xfe, 0xff], what: "UTF-16; convert it to UTF-8" },
];

async function readHead(path: string): Promise<Uint8Array> {
  const absolute = resolve(path);
  try {
    const info = await stat(absolute);
    if (info.isDirectory()) throw dataError(`data.path ${absolute} is a directory; expected a JSONL file`);
    const file = await open(absolute);
    try {
      const head = new Uint8Array(4);
      const { bytesRead } = await file.read(head, 0, 4, 0);
      return head.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT") throw dataError(`data.path ${absolute} does not exist`, { cause: error });
    if (code === "EACCES")
      throw dataError(`data.path ${absolute} cannot be read: permission denied`, { cause: error });
    throw error;
  }
}

/** Splits a byte stream at newlines. A line over the cap comes as `null`, and its bytes are never held. */
async function* splitLines(
  chunks: AsyncIterable<Buffer>,
  maxLineBytes: number,
): AsyncGenerator<Buffer | null> {
  let pieces: Buffer[] = [];
  let size = 0;
  let isTooLong = false;
  const take = (): Buffer | null => {
    const line = isTooLong ? null : pieces.length === 1 ? pieces[0] : Buffer.concat(pieces, size);
    pieces = [];
    size = 0;
    isTooLong = false;
    return line;
  };
  const keep = (piece: Buffer): void => {
    size += piece.length;
    if (size > maxLineBytes) {
      isTooLong = true;
      pieces = [];
    }
    if (!isTooLong && piece.length > 0) pieces.push(piece);
  };
  for await (const chunk of chunks) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      keep(chunk.subarray(start, end));
      yield take();
      start = end + 1;
    }
    keep(chunk.subarray(start));
  }
  if (size > 0) yield take();
}

function parseLine(
  bytes: Buffer | null,
  line: number,
  decoder: TextDecoder,
  maxLineBytes: number,
): JsonLine | null {
  const bad = (reason: SkipReason, message: string): JsonLine => ({ line, kind: "bad", reason, message });
  if (bytes === null) return bad("line-too-long", `longer than ${maxLineBytes} bytes`);
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch {
    return bad("invalid-utf8", "not valid UTF-8");
  }
  if (line === 1 && text.startsWith("\uFEFF")) text = text.slice(1);
  if (text.trim() === "") return null;
  try {
    return { line, kind: "value", value: JSON.parse(text) as unknown };
  } catch (error) {
    return bad("invalid-json", `not valid JSON (${(error as Error).message})`);
  }
}

/**
 * The lines of a JSONL file, in order. Blank lines are passed over but counted in `line`, which starts at 1.
 * @throws {TroupeError} DATA naming the file: missing, unreadable, empty, another format, damaged gzip
 */
export async function* readJsonLines(path: string, options: JsonLinesOptions = {}): AsyncGenerator<JsonLine> {
  const { maxLineBytes = MAX_LINE_BYTES, signal } = options;
  const absolute = resolve(path);
  const head = await readHead(path);
  if (head.length === 0) throw dataError(`data.path ${absolute} is empty; expected one JSON object per line`);
  const foreign = FOREIGN.find(({ magic }) => startsWith(head, magic));
  if (foreign !== undefined) throw dataError(`data.path ${absolute} is ${foreign.what}`);

  const file = createReadStream(absolute, { highWaterMark: 256 * 1024 });
  const isGzip = startsWith(head, [0x1f, 0x8b]);
  const gunzip = isGzip ? createGunzip() : null;
  if (gunzip !== null) file.once("error", (error) => gunzip.destroy(error)).pipe(gunzip);
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let line = 0;
  try {
    for await (const bytes of splitLines(gunzip ?? file, maxLineBytes)) {
      signal?.throwIfAborted();
      line++;
      const parsed = parseLine(bytes, line, decoder, maxLineBytes);
      if (parsed !== null) yield parsed;
    }
  } catch (error) {
    const { code } = error as { code?: unknown };
    if (typeof code !== "string" || !code.startsWith("Z_")) throw error;
    const damage =
      code === "Z_BUF_ERROR" ? "the gzip stream ends too early (truncated)" : "the gzip stream is damaged";
    throw dataError(`data.path ${absolute}: ${damage} after line ${line}; fetch the file again`, {
      cause: error,
    });
  } finally {
    // The reader may stop early (maxRows); without this the descriptor stays open until the file ends.
    gunzip?.destroy();
    file.destroy();
  }
}
