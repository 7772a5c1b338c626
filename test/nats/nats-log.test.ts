import { randomUUID } from "node:crypto";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { connectNats } from "../../src/coordinator/journal/nats-connection.js";
import { openNatsLog } from "../../src/coordinator/journal/nats-log.js";
import { sleep } from "../../src/shared/abort.js";
import { encodeSnapshot, frame, unframe } from "../../src/coordinator/journal/encoding.js";
import {
  admitted,
  collection,
  describeDurableLog,
  epoch,
  epochsOf,
  failureOf,
  payloadIdsOf,
  sequencesOf,
} from "../unit/coordinator/journal/durable-log-contract.js";
import { hasNatsServer, NatsServer, WHY_SKIPPED } from "./nats-server.js";

describe.skipIf(!hasNatsServer)(`nats log${WHY_SKIPPED}`, () => {
  let server: NatsServer;
  let connection: NatsConnection;
  const connect = () =>
    connectNats({ servers: [server.url], tokenFile: null, replicas: 1, run: "unused" }, "test");
  const openAs = (owner: string, run: string, more: object = {}) =>
    openNatsLog(connection, { run, replicas: 1, owner, ...more });
  const newRun = () => `test-${randomUUID().slice(0, 8)}`;

  beforeAll(async () => {
    server = await NatsServer.start();
    connection = await connect();
  });
  afterAll(async () => {
    await connection?.close();
    await server?.stop();
  });

  describeDurableLog("nats log", () => {
    const run = newRun();
    return { open: (options) => openAs("test", run, options), survivesClose: true };
  });

  it("refuses the appends of a coordinator once another has opened the log, and loses none from before", async () => {
    const run = newRun();
    const old = await openAs("old", run);
    await old.append([epoch(1)]);
    const current = await openAs("current", run);
    const error = await failureOf(old.append([epoch(2)]));
    expect(error.code).toBe("FENCED");
    await current.append([epoch(2)]);
    expect((await failureOf(old.append([epoch(3)]))).code).toBe("FENCED");
    expect((await failureOf(old.compact())).code).toBe("FENCED");
    expect(await epochsOf(current)).toEqual([1, 2]);
    await old.close();
    await current.close();
  });

  it("lets exactly one of two that open at the same time append", async () => {
    const run = newRun();
    const logs = await Promise.all([openAs("a", run), openAs("b", run)]);
    const outcomes = await Promise.allSettled(logs.map((log) => log.append([epoch(1)])));
    expect(outcomes.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    const winner = logs[outcomes.findIndex(({ status }) => status === "fulfilled")];
    expect(await epochsOf(winner)).toEqual([1]);
    for (const log of logs) await log.close();
  });

  it("does not show the payload of an append that was refused", async () => {
    const run = newRun();
    const old = await openAs("old", run);
    await old.append([epoch(1), { record: collection(0, 1) }]);
    const current = await openAs("current", run);
    const entry = { record: admitted("0/0/0"), put: [{ id: "0/0/0", bytes: new Uint8Array([1]) }] };
    await failureOf(old.append([entry]));
    expect(await payloadIdsOf(current)).toEqual([]);
    expect(await current.getPayload("0/0/0")).toBeUndefined();
    expect((await current.recover()).counts.admitted).toBe(0);
  });

  it("stores values larger than a message, records and payloads", async () => {
    const run = newRun();
    let log = await openAs("first", run);
    const bytes = new Uint8Array(2_500_000).map((_, i) => i % 251);
    await log.append([epoch(1), { record: collection(0, 80_000) }]);
    await log.append([{ record: admitted("0/7/0"), put: [{ id: "0/7/0", bytes }] }]);
    await log.close();
    log = await openAs("second", run);
    expect((await log.recover()).counts.requested).toBe(80_000);
    expect(Buffer.compare((await log.getPayload("0/7/0"))!, bytes)).toBe(0);
    await log.compact();
    await log.close();
    log = await openAs("third", run);
    expect((await log.recover()).counts).toMatchObject({ requested: 80_000, admitted: 1 });
    await log.close();
  });

  it("passes over a value whose writer was lost between its parts", async () => {
    const run = newRun();
    let log = await openAs("first", run);
    await log.append([epoch(1)]);
    await log.close();
    const { headers } = await import("@nats-io/transport-node");
    const half = headers();
    half.set("Troupe-Part", "1/2");
    await jetstream(connection).publish(`troupe.${run}.LOG`, frame(Buffer.from('{"type":"rec')), {
      headers: half,
    });
    log = await openAs("second", run);
    await log.append([epoch(2)]);
    expect(await epochsOf(log)).toEqual([1, 2]);
    await log.close();
  });

  it("compacts by itself and frees the space of records and payloads", async () => {
    const run = newRun();
    const log = await openAs("first", run, { compactEveryRecords: 20 });
    await log.append([epoch(1), { record: collection(0, 40) }]);
    for (let i = 0; i < 40; i++) {
      const id = `0/${i}/0`;
      await log.append([{ record: admitted(id), put: [{ id, bytes: new Uint8Array(10) }] }]);
    }
    const ids = Array.from({ length: 39 }, (_, i) => `0/${i}/0`);
    await log.append([
      { record: { type: "ExperiencesDropped", experienceIds: ids, reason: "stale" }, delete: ids },
    ]);
    await log.compact();
    await log.close();
    const { streams } = await jetstreamManager(connection);
    expect((await streams.info(`TROUPE_${run}_LOG`)).state.messages).toBeLessThan(5);
    expect((await streams.info(`TROUPE_${run}_PAYLOADS`)).state.messages).toBe(1);
  });

  it("folds by itself few records that are large", async () => {
    const run = newRun();
    const log = await openAs("first", run);
    const { streams } = await jetstreamManager(connection);
    const firstSequence = async () => (await streams.info(`TROUPE_${run}_LOG`)).state.first_seq;
    const before = await firstSequence();
    await log.append([epoch(1)]);
    for (let i = 0; i < 3; i++) await log.append([{ record: collection(i, 160_000) }]);
    await expect.poll(firstSequence, { timeout: 20_000 }).toBeGreaterThan(before);
    await log.close();
    const again = await openAs("second", run);
    expect((await again.recover()).counts.requested).toBe(480_000);
    await again.close();
  });

  it("reads a snapshot of an older release, whose state is text among its fields", async () => {
    const run = newRun();
    const log = await openAs("first", run);
    await log.append([epoch(1), epoch(2)]);
    const state = Buffer.from(
      unframe("s", encodeSnapshot({ sequence: 2, state: await log.recover() })),
    ).toString("utf8");
    await log.close();
    const old = { type: "snapshot", sequence: 2, state, payloads: [] };
    await jetstream(connection).publish(`troupe.${run}.LOG`, frame(Buffer.from(JSON.stringify(old))));
    const next = await openAs("second", run);
    await next.append([epoch(3)]);
    expect((await next.recover()).epoch).toBe(3);
    expect(await sequencesOf(next)).toEqual([3]);
    await next.close();
  });

  it("names the entry when a stored value was changed or lost", async () => {
    const changed = newRun();
    const log = await openAs("first", changed);
    await log.append([epoch(1)]);
    await log.close();
    const bad = frame(Buffer.from("{}"));
    bad[bad.length - 1] ^= 1;
    await jetstream(connection).publish(`troupe.${changed}.LOG`, bad);
    const error = await failureOf(openAs("second", changed));
    expect(error.code).toBe("STORAGE");
    expect(error.message).toMatch(new RegExp(`TROUPE_${changed}_LOG/3 is damaged`));

    const holed = newRun();
    const whole = await openAs("first", holed);
    for (const n of [1, 2, 3]) await whole.append([epoch(n)]);
    await whole.close();
    await (await jetstreamManager(connection)).streams.deleteMessage(`TROUPE_${holed}_LOG`, 3);
    expect((await failureOf(openAs("second", holed))).message).toMatch(/lacks entry r0*2 /);
  });

  it("waits for a server that restarts, and writes every record once", async () => {
    const run = newRun();
    const log = await openAs("first", run);
    await log.append([epoch(1)]);
    await server.kill();
    const appended = Promise.all([2, 3, 4].map((n) => log.append([epoch(n)])));
    await server.restart();
    await appended;
    expect(await sequencesOf(log)).toEqual([1, 2, 3, 4]);
    await log.close();
  });

  it("asks once more after its process was stopped past its patience, and hears that it was replaced", async () => {
    const run = newRun();
    const old = await openAs("old", run, { patienceMs: 3_000 });
    await old.append([epoch(1)]);
    const current = await openAs("current", run);
    await current.append([epoch(2)]);
    server.pause();
    const append = failureOf(old.append([epoch(2)]));
    await sleep(100); // the request is on its way
    stopThisProcess(4_000);
    await sleep(300); // the overdue timers come before the answer
    server.resume();
    expect((await append).code).toBe("FENCED");
    await old.close();
    await current.close();
  });

  it("says STORAGE when no server answers for longer than its patience, and appends nothing after that", async () => {
    const other = await NatsServer.start();
    const lone = await connectNats(
      { servers: [other.url], tokenFile: null, replicas: 1, run: "unused" },
      "test",
    );
    const log = await openNatsLog(lone, { run: newRun(), replicas: 1, owner: "a", patienceMs: 300 });
    await other.kill();
    expect((await failureOf(log.append([epoch(1)]))).code).toBe("STORAGE");
    await other.restart();
    expect((await failureOf(log.append([epoch(1)]))).code).toBe("STORAGE");
    await log.close();
    await lone.close();
    await other.stop();
  });
});

/** What SIGSTOP does to timers: nothing runs, and all of them are overdue afterwards. */
const stopThisProcess = (ms: number) => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

it("names the servers when none answers", async () => {
  const options = { servers: ["127.0.0.1:1"], tokenFile: null, replicas: 1, run: "unused" };
  const error = await failureOf(connectNats(options, "test"));
  expect(error.code).toBe("UNREACHABLE");
  expect(error.message).toContain("127.0.0.1:1");
});
