/**
 * LevelDB's write-ahead log, looked at before LevelDB opens it. LevelDB takes what it can read and goes on without the
 * rest; a flipped bit would so lose, without a word, every record behind it that somebody relies on. Which is not to be
 * taken for the end of a write that a power cut interrupted: every batch is synced before the next is written, so only
 * the last may be incomplete, and nothing begins behind it.
 *
 * Format (leveldb/doc/log_format.md): blocks of 32 KiB; in each, records of crc32c u32 (masked, of type and data),
 * length u16, type u8 (1 whole, 2 first, 3 middle, 4 last part), data. Little-endian.
 */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { storageError } from "../../shared/errors.js";
import { AFTER_DAMAGE } from "../after-damage.js";

const BLOCK_BYTES = 32 << 10;
const HEADER_BYTES = 7;
const WHOLE = 1;
const FIRST = 2;
const LAST = 4;

/** @throws {TroupeError} STORAGE naming file and place of the damage */
export async function checkWriteAheadLog(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    if (!/^\d+\.log$/.test(name)) continue;
    const at = damageIn(await readFile(join(directory, name)));
    if (at !== undefined)
      throw storageError(
        `journal ${directory} is damaged: ${name} cannot be read at byte ${at}, and records follow; ${AFTER_DAMAGE}`,
      );
  }
}

/** @returns where the log cannot be read although a batch begins behind it */
export function damageIn(log: Buffer): number | undefined {
  let damagedAt: number | undefined;
  for (let start = 0; start < log.length; start += BLOCK_BYTES) {
    const block = log.subarray(start, start + BLOCK_BYTES);
    for (let at = 0; at + HEADER_BYTES <= block.length;) {
      const length = recordAt(block, at);
      if (length === undefined) {
        damagedAt ??= start + at;
        at += 1; // where the next one begins is not known any more
      } else if (damagedAt !== undefined && block[at + 6] <= FIRST) return damagedAt;
      else at += HEADER_BYTES + length;
    }
  }
  return undefined;
}

/** @returns length of the data of the record there; undefined when there is none, or none that is whole */
function recordAt(block: Buffer, at: number): number | undefined {
  const length = block.readUInt16LE(at + 4);
  const type = block[at + 6];
  const end = at + HEADER_BYTES + length;
  if (type < WHOLE || type > LAST || end > block.length) return undefined;
  return unmasked(block.readUInt32LE(at)) === crc32c(block.subarray(at + 6, end)) ? length : undefined;
}

/** LevelDB stores a checksum turned and shifted, since a checksum of checksums is a poor one. */
function unmasked(stored: number): number {
  const turned = (stored - 0xa282ead8) >>> 0;
  return ((turned >>> 17) | (turned << 15)) >>> 0;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

/** Castagnoli; zlib has only the other one. */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) crc = (crc >>> 8) ^ TABLE[(crc ^ bytes[i]) & 0xff];
  return (crc ^ 0xffffffff) >>> 0;
}
