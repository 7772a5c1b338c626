/** Log entries that say which payloads a chunk of a payload file holds: JSON in the frame of every journal value. */
import { storageError } from "../../shared/errors.js";
import { AFTER_DAMAGE } from "../after-damage.js";
import { frame, unframe } from "./encoding.js";
import type { Chunk } from "./payload-files.js";

/** 16 hex digits hold every safe integer and sort like numbers. */
export const chunkKey = (number: number): string => `p${number.toString(16).padStart(16, "0")}`;

export function encodeChunk(chunk: Chunk): Uint8Array {
  return frame(Buffer.from(JSON.stringify(chunk)));
}

/** @throws {TroupeError} STORAGE naming `key` when the value is damaged */
export function decodeChunk(key: string, value: Uint8Array): Chunk {
  const body = unframe(key, value);
  try {
    return JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString("utf8")) as Chunk;
  } catch (cause) {
    throw storageError(`journal entry ${key} is not readable JSON: the journal is damaged; ${AFTER_DAMAGE}`, {
      cause,
    });
  }
}
