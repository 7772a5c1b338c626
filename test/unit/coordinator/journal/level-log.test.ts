import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ClassicLevel } from "classic-level";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openLevelLog } from "../../../../src/coordinator/journal/index.js";
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
    expect((await failureOf(reopened.recover())).message).toMatch(/format 9, expected 1/);
    await reopened.close();
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
    expect((await failureOf(reopened.getPayload("0/0/0"))).message).toMatch(/p0\/0\/0 is damaged/);
    await reopened.close();
  });

  it("reports a directory it cannot use", async () => {
    const error = await failureOf(openLevelLog("/dev/null/journal"));
    expect(error.code).toBe("STORAGE");
  });
});
