/** What every engine of the journal must do; each engine's tests run all of it. */
import { describe, expect, it } from "vitest";
import type { DurableRecord } from "../../../../src/coordinator/core/index.js";
import type { DurableLog, LogEntry } from "../../../../src/coordinator/journal/index.js";
import { TroupeError } from "../../../../src/shared/errors.js";

export const epoch = (n: number): LogEntry => ({ record: { type: "EpochStarted", epoch: n } });

export const collection = (iteration: number, size: number): DurableRecord => ({
  type: "CollectionOpened",
  iteration,
  policyVersion: 0,
  tasks: [
    { taskId: `t${iteration}`, experienceIds: Array.from({ length: size }, (_, i) => `${iteration}/${i}/0`) },
  ],
});

export const admitted = (id: string): DurableRecord => ({
  type: "ExperiencesAdmitted",
  policyVersion: 0,
  experienceIds: [id],
  bytes: [3],
});

export async function failureOf(promise: Promise<unknown>): Promise<TroupeError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(TroupeError);
  return error as TroupeError;
}

export async function epochsOf(log: DurableLog): Promise<number[]> {
  const epochs: number[] = [];
  for await (const { record } of log.records()) if (record.type === "EpochStarted") epochs.push(record.epoch);
  return epochs;
}

export async function sequencesOf(log: DurableLog): Promise<number[]> {
  const sequences: number[] = [];
  for await (const { sequence } of log.records()) sequences.push(sequence);
  return sequences;
}

export async function payloadIdsOf(log: DurableLog): Promise<string[]> {
  const ids: string[] = [];
  for await (const id of log.payloadIds()) ids.push(id);
  return ids.sort();
}

export interface LogUnderTest {
  /** Opens the log of this test: empty at first, later with what was appended before it was closed. */
  readonly open: (options?: { compactEveryRecords?: number }) => Promise<DurableLog>;
  /** Engines that keep nothing across a close cannot be asked for it. */
  readonly survivesClose: boolean;
}

/** @param setUp called in every test, for a log of its own */
export function describeDurableLog(engine: string, setUp: () => LogUnderTest): void {
  describe(`${engine}: what every log does`, () => {
    const reopen = async (subject: LogUnderTest, log: DurableLog): Promise<DurableLog> => {
      if (!subject.survivesClose) return log;
      await log.close();
      return subject.open();
    };

    it("recovers the folded state and the payloads after a reopen", async () => {
      const subject = setUp();
      let log = await subject.open();
      await log.append([epoch(1), { record: collection(0, 2) }]);
      await log.append([
        { record: admitted("0/0/0"), put: [{ id: "0/0/0", bytes: new Uint8Array([1, 2, 3]) }] },
      ]);
      log = await reopen(subject, log);
      const state = await log.recover();
      expect(state.epoch).toBe(1);
      expect(state.counts).toMatchObject({
        requested: 2,
        open: 1,
        admitted: 1,
        buffered: 1,
        bufferedBytes: 3,
      });
      expect([...(await log.getPayload("0/0/0"))!]).toEqual([1, 2, 3]);
      expect(await log.getPayload("0/1/0")).toBeUndefined();
      expect(await payloadIdsOf(log)).toEqual(["0/0/0"]);
      await log.close();
    });

    it("starts empty", async () => {
      const log = await setUp().open();
      expect((await log.recover()).epoch).toBe(0);
      expect(await sequencesOf(log)).toEqual([]);
      expect(await payloadIdsOf(log)).toEqual([]);
      await log.append([]);
      expect(await sequencesOf(log)).toEqual([]);
      await log.close();
    });

    it("deletes a payload together with the record that makes it useless, and keeps the others", async () => {
      const subject = setUp();
      let log = await subject.open();
      await log.append([epoch(1), { record: collection(0, 3) }]);
      for (const i of [0, 1, 2]) {
        const id = `0/${i}/0`;
        await log.append([{ record: admitted(id), put: [{ id, bytes: new Uint8Array([i]) }] }]);
      }
      await log.append([
        {
          record: { type: "ExperiencesDropped", experienceIds: ["0/0/0", "0/2/0"], reason: "stale" },
          delete: ["0/0/0", "0/2/0"],
        },
      ]);
      expect(await payloadIdsOf(log)).toEqual(["0/1/0"]);
      log = await reopen(subject, log);
      expect(await payloadIdsOf(log)).toEqual(["0/1/0"]);
      expect([...(await log.getPayload("0/1/0"))!]).toEqual([1]);
      expect(await log.getPayload("0/0/0")).toBeUndefined();
      await log.close();
    });

    it("recovers the same state from snapshot + tail as from the whole log", async () => {
      const bytes = new Uint8Array([4]);
      const entries: LogEntry[] = [
        epoch(1),
        { record: collection(0, 3) },
        { record: admitted("0/1/0"), put: [{ id: "0/1/0", bytes }] },
      ];
      const tail: LogEntry[] = [{ record: admitted("0/0/0"), put: [{ id: "0/0/0", bytes }] }, epoch(2)];
      const subject = setUp();
      let log = await subject.open();
      await log.append(entries);
      await log.append(tail);
      const whole = await log.recover();
      await log.compact();
      expect(await log.recover()).toEqual(whole);
      expect(await sequencesOf(log)).toEqual([]);
      await log.append([epoch(3)]);
      log = await reopen(subject, log);
      expect(await sequencesOf(log)).toEqual([6]);
      const state = await log.recover();
      expect(state).toEqual({ ...whole, epoch: 3 });
      expect(await payloadIdsOf(log)).toEqual(["0/0/0", "0/1/0"]);
      expect([...(await log.getPayload("0/1/0"))!]).toEqual([4]);
      await log.compact();
      await log.compact();
      log = await reopen(subject, log);
      expect(await log.recover()).toEqual(state);
      await log.close();
    });

    it("keeps overlapping appends in call order", async () => {
      const log = await setUp().open();
      await Promise.all(Array.from({ length: 50 }, (_, i) => log.append([epoch(i + 1)])));
      expect(await epochsOf(log)).toEqual(Array.from({ length: 50 }, (_, i) => i + 1));
      expect(await sequencesOf(log)).toEqual(Array.from({ length: 50 }, (_, i) => i + 1));
      await log.close();
    });

    it("loses nothing that is appended while it compacts", async () => {
      const subject = setUp();
      let log = await subject.open();
      const appends: Promise<void>[] = [];
      const compactions: Promise<void>[] = [];
      for (let n = 1; n <= 60; n++) {
        appends.push(log.append([epoch(n)]));
        if (n % 20 === 0) {
          await appends[n - 10];
          compactions.push(log.compact());
        }
      }
      await Promise.all([...appends, ...compactions]);
      log = await reopen(subject, log);
      expect((await log.recover()).epoch).toBe(60);
      await log.append([epoch(61)]);
      expect((await log.recover()).epoch).toBe(61);
      await log.close();
    });

    it("refuses a record that cannot follow the state before it, naming its place", async () => {
      const log = await setUp().open();
      await log.append([epoch(2), epoch(1)]);
      const error = await failureOf(log.recover());
      expect(error.code).toBe("STORAGE");
      expect(error.message).toMatch(/r0*2 does not fit.*epoch 2 is already open/);
      await log.close();
    });

    it("closes twice without complaint", async () => {
      const log = await setUp().open();
      await log.append([epoch(1)]);
      await log.close();
      await log.close();
    });
  });
}
