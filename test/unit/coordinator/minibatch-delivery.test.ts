import { expect, it } from "vitest";
import { deliverMinibatch } from "../../../src/coordinator/minibatch-delivery.js";
import { StreamRegistry } from "../../../src/coordinator/stream-registry.js";
import { RowAssembly } from "../../../src/learner/row-assembly.js";
import { MAX_PART_BYTES } from "../../../src/rpc/codec/shard-pieces.js";
import type { MicroShard } from "../../../src/rpc/codec/shard.js";
import type { LearnerDirective } from "../../../src/rpc/generated/troupe/v1/LearnerDirective.js";
import type { LearnerDirective__Output } from "../../../src/rpc/generated/troupe/v1/LearnerDirective.js";
import { troupe } from "../../../src/rpc/load-proto.js";
import { sleep } from "../../../src/shared/abort.js";
import { WorkerStream } from "./rollout-stage.js";

const ROWS = 40;
const TOKENS = 10;
const ROW_BYTES = 4 + 5 * TOKENS;
/** Two rows to a message, in two shards. */
const PIECE_BYTES = 2 * ROW_BYTES;
const shards = [0, 1].map((index): MicroShard => ({
  index,
  rows: {
    kind: "sft",
    rows: Array.from({ length: ROWS / 2 }, (_, i) => ({
      ids: new Int32Array(TOKENS).fill(100 * index + i),
      lossMask: new Uint8Array(TOKENS).fill(1),
    })),
  },
}));
const train = { generation: 3, step: 8, firstShard: 0, shardCount: 2, memberCount: 1 };

const connected = () => {
  const streams = new StreamRegistry<LearnerDirective>();
  const call = new WorkerStream({});
  streams.bind("w", 1, call as never);
  const received = call.received as unknown as LearnerDirective[];
  const deliver = (changes: Partial<Parameters<typeof deliverMinibatch>[1]> = {}) =>
    deliverMinibatch(streams, {
      workerId: "w",
      incarnation: 1,
      train,
      shards,
      isWanted: () => true,
      pieceBytes: PIECE_BYTES,
      ...changes,
    });
  return { call, received, deliver };
};
const { Perform } = troupe.v1.LearnerService.service;
const overWire = (directive: LearnerDirective) =>
  Perform.responseDeserialize(Perform.responseSerialize(directive)) as LearnerDirective__Output;

/** As a learner takes them. */
function assembled(directives: readonly LearnerDirective[], rows = new RowAssembly()): MicroShard[] {
  for (const directive of directives.map(overWire)) {
    if (directive.rows) rows.add(directive.rows);
    if (directive.train) return rows.take(directive.train);
  }
  throw new Error("no TrainStep came");
}

it("rows beyond a message come ahead of the step, and it gets all of them in order", async () => {
  const { received, deliver } = connected();
  expect(await deliver()).toBe(true);
  expect(received.map((directive) => Object.keys(directive)[0])).toEqual([
    ...new Array<string>(ROWS / 2 - 1).fill("rows"),
    "train",
  ]);
  expect(assembled(received)).toStrictEqual(shards);
});

it("what fits is one message, as is nothing at all", async () => {
  const { received, deliver } = connected();
  await deliver({ pieceBytes: ROWS * ROW_BYTES });
  await deliver({ shards: [] });
  expect(received.map((directive) => Object.keys(directive))).toEqual([["train"], ["train"]]);
  expect(assembled(received.slice(0, 1))).toStrictEqual(shards);
  expect(assembled(received.slice(1))).toEqual([]);
});

it("a learner that does not read has two messages in memory, not all of them", async () => {
  const { call, received, deliver } = connected();
  call.isDeaf = true;
  const delivered = deliver();
  await sleep(50);
  expect(received.length + call.writableLength).toBeLessThanOrEqual(2);
  call.destroy();
  expect(await delivered).toBe(false);
});

it("a step given up is sent no further, and its rows are dropped for those of the next", async () => {
  const { received, deliver } = connected();
  let asked = 0;
  expect(await deliver({ isWanted: () => (asked += 1) <= 4 })).toBe(true);
  expect(received.some(({ train: sent }) => sent !== undefined)).toBe(false);
  expect(received.length).toBeGreaterThan(0);
  await deliver({ train: { ...train, generation: 4 } });
  expect(assembled(received)).toStrictEqual(shards);
});

it("goes to exactly the incarnation it is for", async () => {
  const { received, deliver } = connected();
  expect(await deliver({ incarnation: 2 })).toBe(false);
  expect(received).toEqual([]);
});

it("a step whose rows did not all come is refused", async () => {
  const { received, deliver } = connected();
  await deliver();
  expect(() => assembled(received.slice(1))).toThrow(
    expect.objectContaining({
      code: "PROTOCOL",
      message: expect.stringMatching(/expected 19.*got 18/) as string,
    }),
  );
});

it("a learner keeps no more than its limit, and the coordinator sends no more than that", async () => {
  const { received, deliver } = connected();
  await deliver();
  expect(() => assembled(received, new RowAssembly(10 * ROW_BYTES))).toThrow(/at most 540 bytes/);
  const endless = { length: MAX_PART_BYTES };
  const row = { ids: endless, lossMask: endless } as never;
  await expect(deliver({ shards: [{ index: 0, rows: { kind: "sft", rows: [row] } }] })).rejects.toMatchObject(
    {
      code: "CONFIG",
      message: expect.stringMatching(/minibatchSize.*cluster\.learners/) as string,
    },
  );
});
