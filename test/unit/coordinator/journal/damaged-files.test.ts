/** LevelDB's own files, cut, flipped and taken away: the journal says so, or is a prefix of what was written. */
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openLevelLog } from "../../../../src/coordinator/journal/index.js";
import { damageIn } from "../../../../src/coordinator/journal/write-ahead-log.js";
import { TroupeError } from "../../../../src/shared/errors.js";
import { admitted, collection, epoch } from "./durable-log-contract.js";

const COUNT = 60;
const bytesOf = (i: number) => new Uint8Array(100 + i).fill(i);
const idOf = (i: number) => `0/${i}/0`;

let folder: string;
/** A journal of two sessions: the records of the first lie in a table, those of the second in the write-ahead log. */
let whole: string;
const copy = () => join(folder, "copy");

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "troupe-damaged-"));
  whole = join(folder, "whole");
  for (const [from, to] of [
    [0, COUNT / 2],
    [COUNT / 2, COUNT],
  ]) {
    const log = await openLevelLog(whole);
    if (from === 0) await log.append([epoch(1), { record: collection(0, COUNT) }]);
    for (let i = from; i < to; i++)
      await log.append([{ record: admitted(idOf(i)), put: [{ id: idOf(i), bytes: bytesOf(i) }] }]);
    await log.close();
  }
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** @returns how many experiences the damaged copy knows, each with its payload, or that it refuses */
async function knownAfter(name: string, damage: (path: string) => void): Promise<number | "refused"> {
  rmSync(copy(), { recursive: true, force: true });
  cpSync(whole, copy(), { recursive: true });
  damage(join(copy(), name));
  try {
    const log = await openLevelLog(copy());
    try {
      const { counts, experiences } = await log.recover();
      for (let i = 0; i < COUNT; i++)
        expect(experiences.get(idOf(i))?.status).toBe(i < counts.admitted ? "buffered" : "open");
      for (let i = 0; i < counts.admitted; i++)
        expect(await log.getPayload(idOf(i))).toEqual(Buffer.from(bytesOf(i)));
      return counts.admitted;
    } finally {
      await log.close();
    }
  } catch (error) {
    expect(error).toBeInstanceOf(TroupeError);
    expect((error as TroupeError).code).toBe("STORAGE");
    return "refused";
  }
}

const fileLike = (pattern: RegExp): string => readdirSync(whole).find((name) => pattern.test(name))!;
const sizeOf = (name: string): number => statSync(join(whole, name)).size;
/** Places all over a file. */
const places = (name: string, count: number): number[] =>
  Array.from({ length: count }, (_, k) => Math.floor((sizeOf(name) * k) / count));
const cutAt = (at: number) => (path: string) => truncateSync(path, at);
const flipAt = (at: number) => (path: string) => {
  const bytes = readFileSync(path);
  bytes[at] ^= 4;
  writeFileSync(path, bytes);
};

describe("a journal whose files are damaged", { timeout: 60_000 }, () => {
  it("knows all when nothing was", async () => {
    expect(await knownAfter("CURRENT", () => undefined)).toBe(COUNT);
  });

  it.each([/^MANIFEST/, /^CURRENT/, /\.ldb$/])("refuses %s when it is cut or gone", async (pattern) => {
    const name = fileLike(pattern);
    expect(await knownAfter(name, rmSync)).toBe("refused");
    for (const at of places(name, 8)) expect(await knownAfter(name, cutAt(at))).toBe("refused");
  });

  it.each([/^MANIFEST/, /^CURRENT/, /\.ldb$/])(
    "refuses a flipped bit of %s, or is not touched by it",
    async (pattern) => {
      const name = fileLike(pattern);
      for (const at of places(name, 16))
        expect([COUNT, "refused"]).toContain(await knownAfter(name, flipAt(at)));
    },
  );

  it("goes on from the last whole batch of a log that ends in the middle of one", async () => {
    const name = fileLike(/\.log$/);
    const known: number[] = [];
    for (const at of places(name, 24)) known.push((await knownAfter(name, cutAt(at))) as number);
    expect(known).toEqual([...known].sort((a, b) => a - b));
    expect(known[0]).toBe(COUNT / 2);
    expect(known.at(-1)).toBeGreaterThan(COUNT - 4);
  });

  it("refuses a log with a flipped bit before its last batch, instead of losing all behind it", async () => {
    const name = fileLike(/\.log$/);
    const last = sizeOf(name) - 1;
    for (const at of places(name, 24)) expect(await knownAfter(name, flipAt(at))).toBe("refused");
    // It might as well be what a power cut left of a batch that nobody was told of.
    expect(await knownAfter(name, flipAt(last))).toBe(COUNT - 1);
  });

  it("tells damage from an unfinished end in a log of many blocks, too", async () => {
    const large = join(folder, "large");
    const log = await openLevelLog(large);
    for (let i = 0; i < 12; i++) await log.append([{ record: collection(i, 1500) }]);
    await log.append([epoch(1)]);
    await log.close();
    const [name] = readdirSync(large).filter((file) => file.endsWith(".log"));
    const bytes = readFileSync(join(large, name));
    expect(bytes.length).toBeGreaterThan(5 * 32_768);
    expect(damageIn(bytes)).toBeUndefined();
    for (let at = 1; at < bytes.length - 200; at += 4_999) {
      expect(damageIn(bytes.subarray(0, at))).toBeUndefined();
      const flipped = Buffer.from(bytes);
      flipped[at] ^= 4;
      expect(damageIn(flipped)).toBeLessThanOrEqual(at);
    }
    const torn = Buffer.from(bytes);
    torn.fill(0, bytes.length - 20);
    expect(damageIn(torn)).toBeUndefined();
  });

  it("says what can be done", async () => {
    await knownAfter(fileLike(/\.log$/), flipAt(1000));
    await expect(openLevelLog(copy())).rejects.toThrow(
      /\d+\.log cannot be read at byte \d+, and records follow; put the run back from a copy, or start another run .*model\.path/,
    );
  });
});

it("a log that cannot be read is told like anything else of the journal", async () => {
  const directory = join(folder, "unreadable");
  mkdirSync(join(directory, "000001.log"), { recursive: true });
  await expect(openLevelLog(directory)).rejects.toMatchObject({
    code: "STORAGE",
    message: expect.stringContaining(`journal ${directory} failed`) as string,
  });
});
