/**
 * The bytes every token writes, read from a tokenizer.json. Concatenated over an answer they are its text in UTF-8,
 * special tokens as they are written: a character cut between two tokens is whole again in the bytes.
 */
import { dataError } from "../shared/errors.js";
import { BYTE_CHARACTERS } from "./byte-level.js";

interface TokenizerJson {
  readonly model?: { readonly vocab?: unknown };
  readonly decoder?: unknown;
  readonly added_tokens?: readonly { readonly id: number; readonly content: string }[];
}

/** How a vocabulary spells its tokens. */
type Spelling = "bytes" | "spaces";

const BYTE_OF = new Map(BYTE_CHARACTERS.map((character, byte) => [character, byte]));
/** SentencePiece's space and its spelling of a single byte. */
const SPACE = /\u2581/gu;
const BYTE_PIECE = /^<0x([0-9A-Fa-f]{2})>$/u;

/**
 * @param json a parsed tokenizer.json with a byte-level (GPT-2, Qwen, Llama 3) or a SentencePiece-like vocabulary
 * @returns bytes by token id; ids that nothing names (rows that pad an embedding) are missing
 * @throws {TroupeError} DATA for another kind of vocabulary
 */
export function tokenBytesOf(json: unknown): Map<number, Uint8Array> {
  const { model, decoder, added_tokens: added = [] } = json as TokenizerJson;
  const spelling = spellingOf(decoder);
  const encoder = new TextEncoder();
  const bytes = new Map<number, Uint8Array>();
  for (const [piece, id] of piecesOf(model?.vocab)) {
    const byte = BYTE_PIECE.exec(piece);
    if (spelling === "bytes") {
      const parts = Array.from(piece, (one) => BYTE_OF.get(one) ?? [...encoder.encode(one)]);
      bytes.set(id, Uint8Array.from(parts.flat()));
    } else if (byte !== null) bytes.set(id, Uint8Array.of(Number.parseInt(byte[1], 16)));
    else bytes.set(id, encoder.encode(piece.replace(SPACE, " ")));
  }
  // Added tokens stand in the vocabulary as they are written, not in its spelling.
  for (const { id, content } of added) bytes.set(id, encoder.encode(content));
  return bytes;
}

function piecesOf(vocab: unknown): [string, number][] {
  if (Array.isArray(vocab)) return (vocab as [string, number][]).map(([piece], id) => [piece, id]);
  return Object.entries((vocab ?? {}) as Record<string, number>);
}

function spellingOf(decoder: unknown): Spelling {
  const types = new Set<string>();
  const collect = (node: unknown): void => {
    if (typeof node !== "object" || node === null) return;
    const { type, decoders } = node as { readonly type?: string; readonly decoders?: readonly unknown[] };
    if (type !== undefined) types.add(type);
    decoders?.forEach(collect);
  };
  collect(decoder);
  if (types.has("ByteLevel")) return "bytes";
  if (types.has("Metaspace") || types.has("ByteFallback")) return "spaces";
  throw dataError(
    `generation.stopStrings needs a byte-level or SentencePiece-like tokenizer, got one whose decoder is ${[...types].join(", ") || "none"}; leave stopStrings empty`,
  );
}
