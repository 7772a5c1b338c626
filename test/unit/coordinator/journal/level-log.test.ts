import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ClassicLevel } from "classic-level";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { DurableRecord } from "../../../../src/coordinator/core/index.js";
import { openLevelLog, type LogEntry } from "../../../../src/coordinator/journal/index.js";
import { TroupeError } from "../../../../src/shared/errors.js";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "troupe-journal-"));
});
afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

const epoch = (n: number): LogEntry => ({ record: { type: "EpochStarted", epoch: n } });
const collection = (iteration: number, size: number): DurableRecord => ({
  type: "CollectionOpened",
  iteration,
  policyVersion: 0,
  tasks: [
    { taskId: `t${iteration}`, experienceIds: Array.from({ length: size }, (_, i) => `${iteration}/${i}/0`) },
  ],
});
const admitted = (id: string): DurableRecord => ({
  type: "ExperienceAdmitted",
  experienceId: id,
  policyVersion: 0,
  bytes: 3,
});

async function codeOf(promise: Promise<unknown>): Promise<TroupeError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(TroupeError);
  return error as TroupeError;
}

async function tamper(change: (database: ClassicLevel<string, Uint8Array>) => Promise<void>): Promise<void> {
  const database = new ClassicLevel<string, Uint8Array>(directory, { valueEncoding: "view" });
  await database.open();
  await change(database);
  await database.close();
}

describe("level log", () => {
  it("recovers the folded state and the payloads after a reopen", async () => {
    let log = await openLevelLog(directory);
    await log.append([epoch(1), { record: collection(0, 2) }]);
    await log.append([
      { record: admitted("0/0/0"), put: [{ id: "0/0/0", bytes: new Uint8Array([1, 2, 3]) }] },
    ]);
    await log.close();

    log = await openLevelLog(directory);
    const state = await log.recover();
    expect(state.epoch).toBe(1);
    expect(state.counts).toMatchObject({ requested: 2, open: 1, admitted: 1, buffered: 1, bufferedBytes: 3 });
    expect([...(await log.getPayload("0/0/0"))!]).toEqual([1, 2, 3]);
    expect(await log.getPayload("0/1/0")).toBeUndefined();
    await log.close();
  });

  it("deletes a payload together with the record that makes it useless", async () => {
    const log = await openLevelLog(directory);
    await log.append([epoch(1), { record: collection(0, 1) }]);
    await log.append([{ record: admitted("0/0/0"), put: [{ id: "0/0/0", bytes: new Uint8Array([7]) }] }]);
    await log.append([
      {
        record: { type: "ExperiencesDropped", experienceIds: ["0/0/0"], reason: "stale" },
        delete: ["0/0/0"],
      },
    ]);
    const ids: string[] = [];
    for await (const id of log.payloadIds()) ids.push(id);
    expect(ids).toEqual([]);
    await log.close();
  });

  it("recovers the same state from snapshot + tail as from the whole log", async () => {
    const entries: LogEntry[] = [epoch(1), { record: collection(0, 3) }, { record: admitted("0/1/0") }];
    const tail: LogEntry[] = [{ record: admitted("0/0/0") }, epoch(2)];
    const log = await openLevelLog(directory);
    await log.append([...entries, ...tail]);
    const whole = await log.recover();
    await log.close();
    rmSync(directory, { recursive: true });

    let compacted = await openLevelLog(directory);
    await compacted.append(entries);
    await compacted.compact();
    await compacted.append(tail);
    await compacted.close();
    compacted = await openLevelLog(directory);
    expect(await compacted.recover()).toEqual(whole);
    let records = 0;
    for await (const _ of compacted.records()) records += 1;
    expect(records).toBe(tail.length);
    await compacted.compact();
    expect(await compacted.recover()).toEqual(whole);
    await compacted.close();
  });

  it("compacts by itself so that the log does not grow without bound", async () => {
    const log = await openLevelLog(directory, { compactEveryRecords: 100 });
    for (let n = 1; n <= 1000; n++) await log.append([epoch(n)]);
    await log.compact();
    let records = 0;
    for await (const _ of log.records()) records += 1;
    expect(records).toBe(0);
    expect((await log.recover()).epoch).toBe(1000);
    await log.close();
    const keys: string[] = [];
    await tamper(async (database) => void keys.push(...(await database.keys().all())));
    expect(keys).toEqual(["s"]);
  });

  it("refuses a second coordinator on the same directory", async () => {
    const log = await openLevelLog(directory);
    const error = await codeOf(openLevelLog(directory));
    expect(error.code).toBe("RUN_DIR_IN_USE");
    expect(error.message).toContain(directory);
    await log.close();
    await (await openLevelLog(directory)).close();
  });

  it("names the entry when a stored record was changed", async () => {
    const log = await openLevelLog(directory);
    await log.append([epoch(1), epoch(2)]);
    await log.close();
    await tamper(async (database) => {
      const key = "r0000000000000002";
      const value = (await database.get(key))!;
      value[value.length - 2] ^= 1;
      await database.put(key, value);
    });
    const reopened = await openLevelLog(directory);
    const error = await codeOf(reopened.recover());
    expect(error.code).toBe("STORAGE");
    expect(error.message).toMatch(/r0000000000000002.*checksum/);
    await reopened.close();
  });

  it("notices a missing record", async () => {
    const log = await openLevelLog(directory);
    await log.append([epoch(1), epoch(2), epoch(3)]);
    await log.close();
    await tamper((database) => database.del("r0000000000000002"));
    const reopened = await openLevelLog(directory);
    expect((await codeOf(reopened.recover())).message).toMatch(/lacks entry r0000000000000002/);
    await reopened.close();
  });

  it("refuses an entry of a newer format", async () => {
    const log = await openLevelLog(directory);
    await log.append([epoch(1)]);
    await log.close();
    await tamper((database) => database.put("r0000000000000001", new Uint8Array([9, 0, 0, 0, 0, 123])));
    const reopened = await openLevelLog(directory);
    expect((await codeOf(reopened.recover())).message).toMatch(/format 9, expected 1/);
    await reopened.close();
  });

  it("refuses a record that cannot follow the state before it", async () => {
    const log = await openLevelLog(directory);
    await log.append([epoch(2), epoch(1)]);
    const error = await codeOf(log.recover());
    expect(error.message).toMatch(/r0000000000000002 does not fit.*epoch 2 is already open/);
    await log.close();
  });

  it("detects a damaged payload", async () => {
    const log = await openLevelLog(directory);
    await log.append([epoch(1), { record: collection(0, 1) }]);
    await log.append([
      { record: admitted("0/0/0"), put: [{ id: "0/0/0", bytes: new Uint8Array([1, 2, 3]) }] },
    ]);
    await log.close();
    await tamper(async (database) => {
      const value = (await database.get("p0/0/0"))!;
      value[6] ^= 0xff;
      await database.put("p0/0/0", value);
    });
    const reopened = await openLevelLog(directory);
    expect((await codeOf(reopened.getPayload("0/0/0"))).message).toMatch(/p0\/0\/0 is damaged/);
    await reopened.close();
  });

  it("keeps overlapping appends in call order", async () => {
    const log = await openLevelLog(directory);
    await Promise.all(Array.from({ length: 50 }, (_, i) => log.append([epoch(i + 1)])));
    const epochs: number[] = [];
    for await (const { record } of log.records())
      if (record.type === "EpochStarted") epochs.push(record.epoch);
    expect(epochs).toEqual(Array.from({ length: 50 }, (_, i) => i + 1));
    await log.close();
  });

  it("reports a directory it cannot use", async () => {
    const error = await codeOf(openLevelLog("/dev/null/journal"));
    expect(error.code).toBe("STORAGE");
  });
});
