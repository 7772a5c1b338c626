import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ClassicLevel } from "classic-level";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openLevelLog, type DurableLog } from "../../../../src/coordinator/journal/index.js";
import { admitted, collection, describeDurableLog, epoch, failureOf } from "./durable-log-contract.js";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "troupe-journal-"));
});
afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

async function tamper(change: (database: ClassicLevel<string, Uint8Array>) => Promise<void>): Promise<void> {
  const database = new ClassicLevel<string, Uint8Array>(directory, { valueEncoding: "view" });
  await database.open();
  await change(database);
  await database.close();
}

const payloadFiles = (): string[] => readdirSync(join(directory, "payloads"));

async function reopen(log: DurableLog): Promise<DurableLog> {
  await log.close();
  return openLevelLog(directory);
}

describeDurableLog("level log", () => ({
  open: (options) => openLevelLog(directory, options),
  survivesClose: true,
}));

describe("level log", () => {
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

  it("says when it could not fold itself, and takes records all the same", async () => {
    const first = await openLevelLog(directory);
    await first.append([epoch(1)]);
    await first.close();
    await tamper(async (database) => {
      const [key] = await database.keys({ gte: "r", lt: "s" }).all();
      await database.put(key, Buffer.from("damaged"));
    });
    const failures: unknown[] = [];
    const onCompactionFailed = (error: unknown) => failures.push(error);
    const log = await openLevelLog(directory, { compactEveryRecords: 2, onCompactionFailed });
    for (let n = 2; n <= 6; n++) await log.append([epoch(n)]);
    await log.close();
    expect(failures.length).toBeGreaterThan(0);
    expect(failures[0]).toMatchObject({ code: "STORAGE" });
  });

  it("refuses a second coordinator on the same directory", async () => {
    const log = await openLevelLog(directory);
    const error = await failureOf(openLevelLog(directory));
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
    const error = await failureOf(reopened.recover());
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
    expect((await failureOf(reopened.recover())).message).toMatch(/lacks entry r0000000000000002/);
    await reopened.close();
  });

  it("refuses an entry of a newer format", async () => {
    const log = await openLevelLog(directory);
    await log.append([epoch(1)]);
    await log.close();
    await tamper((database) => database.put("r0000000000000001", new Uint8Array([9, 0, 0, 0, 0, 123])));
    const reopened = await openLevelLog(directory);
    expect((await failureOf(reopened.recover())).message).toMatch(/format 9, expected 2/);
    await reopened.close();
  });

  it("detects a damaged payload", async () => {
    const log = await openLevelLog(directory);
    await log.append([epoch(1), { record: collection(0, 1) }]);
    await log.append([
      { record: admitted("0/0/0"), put: [{ id: "0/0/0", bytes: new Uint8Array([1, 2, 3]) }] },
    ]);
    await log.close();
    const [file] = payloadFiles();
    const path = join(directory, "payloads", file);
    writeFileSync(path, readFileSync(path).fill(9, 1, 2));
    const reopened = await openLevelLog(directory);
    expect((await failureOf(reopened.getPayload("0/0/0"))).message).toMatch(/p0\/0\/0 is damaged/);
    rmSync(path);
    expect((await failureOf((await reopen(reopened)).getPayload("0/0/0"))).code).toBe("STORAGE");
  });

  it("finds every payload again, whatever was deleted around it, and frees files of which nothing is left", async () => {
    const idOf = (i: number) => `0/${i}/0`;
    const bytesOf = (i: number) => new Uint8Array(10 + (i % 7)).fill(i);
    const all = Array.from({ length: 700 }, (_, i) => i);
    const put = all.map((i) => ({ id: idOf(i), bytes: bytesOf(i) }));
    let log = await openLevelLog(directory);
    await log.append([{ record: collection(0, 700) }]);
    await log.append([{ record: admitted(idOf(0)), put }]);
    expect(payloadFiles()).toHaveLength(1);
    const kept = all.filter((i) => i % 100 === 3);
    const gone = all.filter((i) => !kept.includes(i)).map(idOf);
    await log.append([{ record: { type: "EpochStarted", epoch: 1 }, delete: gone }]);
    log = await reopen(log);
    for (const i of kept) expect(await log.getPayload(idOf(i))).toEqual(Buffer.from(bytesOf(i)));
    for (const id of gone) expect(await log.getPayload(id)).toBeUndefined();
    // What comes after a restart goes into a file of its own.
    await log.append([{ record: admitted(idOf(1)), put: [{ id: "1/0/0", bytes: bytesOf(1) }] }]);
    expect(payloadFiles()).toHaveLength(2);
    await log.append([{ record: { type: "EpochStarted", epoch: 2 }, delete: kept.map(idOf) }]);
    expect(payloadFiles()).toHaveLength(1);
    expect(await log.getPayload("1/0/0")).toEqual(Buffer.from(bytesOf(1)));
    await log.close();
  });

  it("throws away what a crash left between the payloads and the record that names them", async () => {
    await (await openLevelLog(directory)).close();
    writeFileSync(join(directory, "payloads", "00000007.payloads"), "half of a payload");
    const log = await openLevelLog(directory);
    expect(payloadFiles()).toEqual([]);
    await log.append([{ record: epoch(1).record, put: [{ id: "0/0/0", bytes: new Uint8Array([5]) }] }]);
    expect(await log.getPayload("0/0/0")).toEqual(Buffer.from([5]));
    await log.close();
  });

  it("reports a directory it cannot use", async () => {
    const error = await failureOf(openLevelLog("/dev/null/journal"));
    expect(error.code).toBe("STORAGE");
  });
});
