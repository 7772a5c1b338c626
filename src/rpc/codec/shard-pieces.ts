/**
 * A learner's micro-shards as pieces that fit a message each. Which rows share a piece is nobody's business but the
 * wire's: what comes out of `joinPieces` is what went into `cutIntoPieces`, row for row.
 */
import type { MicroShard, PpoRow, ShardRows } from "./shard.js";
import type { PreferencePair, SftRow } from "../../data/types.js";

/** What a learner is ever sent for one minibatch; it keeps all of it. */
export const MAX_PART_BYTES = 2 ** 30;

const languageBytes = ({ ids }: SftRow): number => 4 + 5 * ids.length;
const preferenceBytes = ({ chosen, rejected }: PreferencePair): number =>
  12 + 4 * (chosen.length + rejected.length);
const experienceBytes = ({ promptIds, responseIds, proximalLogprobs }: PpoRow): number =>
  8 + 4 * promptIds.length + (proximalLogprobs === undefined ? 21 : 25) * responseIds.length;

const sumOf = <R>(rows: readonly R[], bytesOf: (row: R) => number): number =>
  rows.reduce((sum, row) => sum + bytesOf(row), 0);

/** Of the columns on the wire; what protobuf puts around them is some 60 bytes a shard. */
export function bytesOfRows(rows: ShardRows): number {
  switch (rows.kind) {
    case "sft":
      return sumOf(rows.rows, languageBytes);
    case "reward":
      return sumOf(rows.rows, preferenceBytes);
    case "ppo":
      return sumOf(rows.rows, experienceBytes) + sumOf(rows.ptx ?? [], languageBytes);
  }
}

/** Contiguous groups of rows; none exceeds `maxBytes` unless it is a single row. No rows make no group. */
function* groups<R>(rows: readonly R[], bytesOf: (row: R) => number, maxBytes: number): Generator<R[]> {
  let group: R[] = [];
  let bytes = 0;
  for (const row of rows) {
    const more = bytesOf(row);
    if (group.length > 0 && bytes + more > maxBytes) {
      yield group;
      group = [];
      bytes = 0;
    }
    group.push(row);
    bytes += more;
  }
  if (group.length > 0) yield group;
}

function* piecesOf(rows: ShardRows, maxBytes: number): Generator<ShardRows> {
  switch (rows.kind) {
    case "sft":
      for (const group of groups(rows.rows, languageBytes, maxBytes)) yield { kind: "sft", rows: group };
      return;
    case "reward":
      for (const group of groups(rows.rows, preferenceBytes, maxBytes)) yield { kind: "reward", rows: group };
      return;
    case "ppo":
      for (const group of groups(rows.rows, experienceBytes, maxBytes))
        yield { kind: "ppo", rows: group, ...(rows.ptx === undefined ? {} : { ptx: [] }) };
      for (const ptx of groups(rows.ptx ?? [], languageBytes, maxBytes)) yield { kind: "ppo", rows: [], ptx };
  }
}

/**
 * Messages for `shards`: in order, each of at most `maxBytes` of columns, or of one row that is longer. A shard that does
 * not fit goes on in the next ones, under its index. No shards make no message.
 */
export function* cutIntoPieces(shards: readonly MicroShard[], maxBytes: number): Generator<MicroShard[]> {
  let message: MicroShard[] = [];
  let bytes = 0;
  for (const { index, rows } of shards) {
    const whole = bytesOfRows(rows);
    // Also one without rows.
    for (const piece of whole <= maxBytes ? [rows] : piecesOf(rows, maxBytes)) {
      const more = piece === rows ? whole : bytesOfRows(piece);
      if (message.length > 0 && bytes + more > maxBytes) {
        yield message;
        message = [];
        bytes = 0;
      }
      message.push({ index, rows: piece });
      bytes += more;
    }
  }
  if (message.length > 0) yield message;
}

/** Undoes `cutIntoPieces`: what follows each other under one index is one shard. */
export function joinPieces(pieces: readonly MicroShard[]): MicroShard[] {
  const shards: { index: number; parts: ShardRows[] }[] = [];
  for (const { index, rows } of pieces) {
    const last = shards.at(-1);
    if (last?.index === index) last.parts.push(rows);
    else shards.push({ index, parts: [rows] });
  }
  return shards.map(({ index, parts }) => ({ index, rows: parts.length === 1 ? parts[0] : joined(parts) }));
}

function joined(parts: readonly ShardRows[]): ShardRows {
  const { kind } = parts[0];
  const rows = parts.flatMap((part) => part.rows as readonly unknown[]);
  if (kind !== "ppo") return { kind, rows } as ShardRows;
  const ptx = parts.flatMap((part) => (part.kind === "ppo" && part.ptx ? [part.ptx] : []));
  return { kind, rows: rows as PpoRow[], ...(ptx.length === 0 ? {} : { ptx: ptx.flat() }) };
}
