/** What a run's end means for coordinators that stand by, and for one that goes on with it. */
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openNatsLog } from "../../src/coordinator/journal/nats-log.js";
import type { Outcome } from "../../src/coordinator/run-end.js";
import { forgetRun } from "../../src/coordinator/standby-forget.js";
import { takeLead, type LeadershipOptions } from "../../src/coordinator/standby.js";
import { createLogger } from "../../src/observability/logger.js";
import { epoch, epochsOf, failureOf } from "../unit/coordinator/journal/durable-log-contract.js";
import { hasNatsServer, NatsServer, WHY_SKIPPED } from "./nats-server.js";

describe.skipIf(!hasNatsServer)(`the lead of a run${WHY_SKIPPED}`, () => {
  let server: NatsServer;
  beforeAll(async () => {
    server = await NatsServer.start();
  });
  afterAll(() => server?.stop());

  const lead = (run: string, more: Partial<LeadershipOptions> = {}) =>
    takeLead({
      nats: { servers: [server.url], tokenFile: null, replicas: 1, run },
      leaseTtlMs: 1_000,
      name: run,
      knownRunId: undefined,
      standby: true,
      mayContinue: false,
      logger: createLogger({ role: "coordinator" }),
      signal: new AbortController().signal,
      ...more,
    });
  const ended = async (outcome: Outcome | undefined): Promise<string> => {
    const run = `test-${randomUUID().slice(0, 8)}`;
    await (await lead(run))?.resign(outcome);
    return run;
  };

  it("a failure that would repeat ends those who stand by, until one is told to go on", async () => {
    const run = await ended({ code: "DATA", message: "row 3 is damaged" });
    for (let i = 0; i < 2; i++) {
      const error = await failureOf(lead(run));
      expect(error.code).toBe("DATA");
      expect(error.message).toMatch(/row 3 is damaged.*--standby --resume auto/);
    }
    const next = await lead(run, { mayContinue: true });
    expect(next?.runId).toMatch(new RegExp(`^${run}-`));
    await next?.resign(undefined);
    await (await lead(run))!.resign(undefined);
  });

  it("a run that was stopped lets those who stand by go, until one is told to go on", async () => {
    const run = await ended({ code: "CANCELLED", message: "enough" });
    expect(await lead(run)).toBeUndefined();
    await (await lead(run, { mayContinue: true }))!.resign(undefined);
  });

  it("a run that is done stays done for those who stand by, whatever else they are told", async () => {
    const run = await ended({ code: null, message: "done" });
    expect(await lead(run)).toBeUndefined();
    expect(await lead(run, { mayContinue: true })).toBeUndefined();
  });

  it("forgets a run that is done, or that is forced, and none that somebody leads", async () => {
    const nats = (run: string) => ({ servers: [server.url], tokenFile: null, replicas: 1, run });
    const forget = (run: string, force = false) =>
      forgetRun({ nats: nats(run), force, signal: new AbortController().signal });
    const run = `test-${randomUUID().slice(0, 8)}`;
    const leadership = (await lead(run))!;
    const { connection } = leadership;
    const log = await openNatsLog(connection, { run, replicas: 1, owner: "test" });
    await log.append([epoch(1)]);
    await log.close();
    expect((await failureOf(forget(run, true))).code).toBe("RUN_DIR_IN_USE");
    await leadership.resign(undefined);
    expect((await failureOf(forget(run))).message).toMatch(/is not done.*--force/);

    const again = (await lead(run))!;
    expect(await epochsOf(await openNatsLog(again.connection, { run, replicas: 1, owner: "test" }))).toEqual([
      1,
    ]);
    await again.resign({ code: null, message: "done" });
    expect(await forget(run)).toBeGreaterThan(0);
    expect((await failureOf(forget(run))).message).toMatch(/keeps nothing/);

    const begun = await ended(undefined);
    await forget(begun, true);
    // Its name is free again.
    await (await lead(begun, { standby: false }))!.resign(undefined);
  });

  it("says which bucket cannot have the copies it should", async () => {
    const run = await ended(undefined);
    const nats = { servers: [server.url], tokenFile: null, replicas: 3, run };
    const error = await failureOf(lead(run, { nats }));
    expect(error.code).toBe("CONFIG");
    expect(error.message).toMatch(new RegExp(`1 copy of KV_TROUPE_${run} and cannot make it 3`));
  });
});
