import fc from "fast-check";
import { expect, it } from "vitest";
import { bytesOfRows, cutIntoPieces, joinPieces } from "../../../src/rpc/codec/shard-pieces.js";
import { toShard, type MicroShard, type PpoRow, type ShardRows } from "../../../src/rpc/codec/shard.js";

const ids = fc.nat(9).map((length) => Int32Array.from({ length }, (_, i) => i + length));
const sftRow = ids.map((row) => ({ ids: row, lossMask: new Uint8Array(row.length).fill(1) }));
const pair = fc.record({ chosen: ids, rejected: ids, promptTokens: fc.nat(5) });
const ppoRow = fc
  .tuple(ids, fc.integer({ min: 1, max: 9 }), fc.boolean())
  .map(([promptIds, length, isStale]): PpoRow => ({
    promptIds,
    responseIds: new Int32Array(length).fill(3),
    logprobs: new Float32Array(length).fill(-1),
    ...(isStale ? { proximalLogprobs: new Float32Array(length).fill(-2) } : {}),
    values: new Float32Array(length).fill(length),
    advantages: new Float32Array(length),
    returns: new Float32Array(length),
    actionMask: new Uint8Array(length).fill(1),
  }));
const rowsOf = fc.oneof(
  fc.array(sftRow, { maxLength: 9 }).map((rows): ShardRows => ({ kind: "sft", rows })),
  fc.array(pair, { maxLength: 9 }).map((rows): ShardRows => ({ kind: "reward", rows })),
  fc
    .tuple(fc.array(ppoRow, { maxLength: 9 }), fc.option(fc.array(sftRow, { maxLength: 9 })))
    .map(([rows, ptx]): ShardRows => ({ kind: "ppo", rows, ...(ptx === null ? {} : { ptx }) })),
);
const shardsOf = fc
  .array(rowsOf, { maxLength: 5 })
  .map((all) => all.map((rows, i): MicroShard => ({ index: 4 + i, rows })));
const limit = fc.integer({ min: 1, max: 800 });

const bytesOf = (shards: readonly MicroShard[]) =>
  shards.reduce((sum, { rows }) => sum + bytesOfRows(rows), 0);
const rowCount = ({ rows }: MicroShard) =>
  rows.rows.length + (rows.kind === "ppo" ? (rows.ptx?.length ?? 0) : 0);

it("pieces put together are what was cut, in its order", () => {
  fc.assert(
    fc.property(shardsOf, limit, (shards, maxBytes) => {
      const messages = [...cutIntoPieces(shards, maxBytes)];
      expect(joinPieces(messages.flat())).toStrictEqual(shards);
    }),
  );
});

it("no message is longer than it may be, unless it is one row", () => {
  fc.assert(
    fc.property(shardsOf, limit, (shards, maxBytes) => {
      for (const message of cutIntoPieces(shards, maxBytes)) {
        expect(message.length).toBeGreaterThan(0);
        const rows = message.reduce((sum, shard) => sum + rowCount(shard), 0);
        if (rows > 1) expect(bytesOf(message)).toBeLessThanOrEqual(maxBytes);
      }
    }),
  );
});

it("what fits goes as one message", () => {
  fc.assert(
    fc.property(shardsOf, (shards) => {
      const messages = [...cutIntoPieces(shards, Math.max(1, bytesOf(shards)))];
      expect(messages).toStrictEqual(shards.length === 0 ? [] : [shards]);
    }),
  );
});

it("rows are counted with the bytes that their columns have", () => {
  const columns = (value: unknown): number => {
    if (value instanceof Uint8Array) return value.byteLength;
    if (value === null || typeof value !== "object") return 0;
    return Object.values(value).reduce((sum: number, one) => sum + columns(one), 0);
  };
  fc.assert(
    fc.property(rowsOf, (rows) => {
      // A shard sends the proximal column for all of its rows or for none.
      const isMixed =
        rows.kind === "ppo" &&
        new Set(rows.rows.map(({ proximalLogprobs }) => proximalLogprobs === undefined)).size > 1;
      fc.pre(!isMixed);
      expect(bytesOfRows(rows)).toBe(columns(toShard({ index: 0, rows })));
    }),
  );
});
