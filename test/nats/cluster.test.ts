/** Three NATS servers keep three copies: one of them is lost, then the coordinator, and the result has the same bits. */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { jetstreamManager, type JetStreamManager } from "@nats-io/jetstream";
import type { NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { connectNats } from "../../src/coordinator/journal/nats-connection.js";
import { openNatsLog } from "../../src/coordinator/journal/nats-log.js";
import { sleep } from "../../src/shared/abort.js";
import { PATIENCE_MS, RunFolder } from "../helpers/tiny-run.js";
import { epoch, epochsOf, failureOf } from "../unit/coordinator/journal/durable-log-contract.js";
import { EXPERIENCES, Fleet, isUpdating } from "./fleet.js";
import { hasNatsServer, NatsCluster, WHY_SKIPPED } from "./nats-server.js";
import { admissionsOf, countOf, storedRecords } from "./stored-records.js";

/** What is left of the run must outlast the looks at it. */
const ITERATIONS = 24;
const REPLICAS = 3;
const LEASE_TTL_MS = 5_000;
/** Beyond the lease; on a machine that does nothing else it takes one or two. */
const STARVED_MS = 10_000;
const SETS = [`ppo.iterations=${ITERATIONS}`];

describe.skipIf(!hasNatsServer)(
  `a cluster of nats servers${WHY_SKIPPED}`,
  { timeout: 2 * PATIENCE_MS },
  () => {
    const inputs = new RunFolder();
    let cluster: NatsCluster;
    let connection: NatsConnection;
    let manager: JetStreamManager;
    let faultFree: string;
    let fleet: Fleet;

    beforeAll(async () => {
      cluster = await NatsCluster.start();
      connection = await connectNats(
        { servers: cluster.url.split(","), tokenFile: null, replicas: REPLICAS, run: "unused" },
        "test",
      );
      manager = await untilIt(() => jetstreamManager(connection));
      const sets = [...SETS, "cluster.rollouts=1", "cluster.learners=1"].flatMap((set) => ["--set", set]);
      faultFree = (await (await inputs.start("fault-free", sets)).finish()).stateSha256;
    }, PATIENCE_MS);
    afterAll(async () => {
      await fleet?.stop();
      await inputs.remove();
      await connection?.close();
      await cluster?.stop();
    });

    /** Names of the run's streams, the bucket of the lease first. */
    const streamsOf = (run: string) => [
      `KV_TROUPE_${run}`,
      ...["LOG", "PAYLOADS", "FILES", "BLOBS"].map((part) => `TROUPE_${run}_${part}`),
    ];
    const clusterOf = async (stream: string) => {
      const { leader, replicas = [] } = (await manager.streams.info(stream)).cluster ?? {};
      return {
        leader: leader ?? "",
        isWhole: replicas.length === REPLICAS - 1 && replicas.every((r) => r.current),
      };
    };
    /** Makes one server lead all of them, so that its loss is felt by each. */
    const gatherLeaders = async (streams: readonly string[]): Promise<string> => {
      const { leader } = await untilIt(() => clusterOf(streams[0]));
      for (const stream of streams)
        await untilIt(async () => {
          if ((await clusterOf(stream)).leader === leader) return;
          await connection.request(`$JS.API.STREAM.LEADER.STEPDOWN.${stream}`);
          throw new Error(`${stream} is not led by ${leader} yet`);
        });
      return leader;
    };
    const untilWhole = (streams: readonly string[]) =>
      untilIt(async () => {
        for (const stream of streams)
          if (!(await clusterOf(stream)).isWhole) throw new Error(`${stream} lacks a copy`);
      });

    it("gives a run that has one copy two more, and keeps what it has when fewer are asked for", async () => {
      const run = `test-${randomUUID().slice(0, 8)}`;
      const openWith = (replicas: number) => openNatsLog(connection, { run, replicas, owner: "test" });
      const log = await openWith(1);
      await log.append([epoch(1)]);
      await log.close();
      const again = await untilIt(() => openWith(REPLICAS));
      expect(await epochsOf(again)).toEqual([1]);
      await again.close();
      for (const part of ["LOG", "PAYLOADS"]) {
        const { config } = await manager.streams.info(`TROUPE_${run}_${part}`);
        expect(config.num_replicas).toBe(REPLICAS);
      }
      const error = await failureOf(openWith(1));
      expect(error.code).toBe("CONFIG");
      expect(error.message).toMatch(/keeps 3 copies of TROUPE_\S+_LOG, cluster.durable.replicas is 1/);
    });

    it("a run goes on when the server that leads its streams is killed, and when its coordinator is", async () => {
      fleet = new Fleet({
        folder: join(inputs.path, "fleet"),
        config: join(inputs.path, "input", "tiny.yaml"),
        nats: cluster.url,
        leaseTtlMs: LEASE_TTL_MS,
        durable: `, replicas: ${REPLICAS}`,
        sets: SETS,
        areApart: true,
      });
      const first = fleet.coordinator("first");
      await fleet.until(() => true);
      const second = fleet.coordinator("second");
      const streams = streamsOf(fleet.runName);
      const lost = await gatherLeaders(streams);
      const workers = [fleet.worker("rollout", "rollout-0"), fleet.worker("learner", "learner-0")];

      const before = await fleet.until(isUpdating(1));
      const records = await storedRecords(connection, fleet.runName, REPLICAS);
      await cluster.named(lost).kill();
      let killedMs = performance.now();
      const stalled = await fleet.until(
        ({ optimizerStep, ledger }) =>
          optimizerStep > before.optimizerStep + 1 ||
          Number(ledger?.admitted) > Number(before.ledger?.admitted),
      );
      const stalledMs = performance.now() - killedMs;
      // The coordinator that led has waited for the servers' election.
      expect(stalled.epoch, fleet.logs()).toBe(before.epoch);
      expect(await fleet.leaderPid()).toBe(first.child.pid);

      // Without a rollout worker the run waits until the servers are three again, however fast it is.
      workers[0].child.kill("SIGTERM");
      expect(await workers[0].exited, fleet.logs()).toBe(0);
      await cluster.named(lost).restart();
      await untilWhole(streams);
      workers[0] = fleet.worker("rollout", "rollout-1");
      const updating = await fleet.until(
        ({ optimizerStep, iteration }) =>
          optimizerStep > stalled.optimizerStep && iteration > stalled.iteration + 1,
      );
      first.child.kill("SIGKILL");
      killedMs = performance.now();
      const left = await storedRecords(connection, fleet.runName, REPLICAS);
      const taken = await fleet.until(({ epoch, workers }) => epoch > updating.epoch && workers.length === 2);
      const takenMs = performance.now() - killedMs;
      console.log(
        `seconds after SIGKILL: ${(stalledMs / 1000).toFixed(2)} until new work with another server, ${(takenMs / 1000).toFixed(2)} until the workers are with the standby`,
      );
      expect(takenMs, fleet.logs()).toBeLessThan(LEASE_TTL_MS + STARVED_MS);
      expect(Number(taken.ledger?.admitted)).toBeGreaterThanOrEqual(admissionsOf(left));

      expect(await second.exited, fleet.logs()).toBe(0);
      expect(await Promise.all(workers.map(({ exited }) => exited))).toEqual([0, 0]);
      const { stateSha256, ppo } = fleet.summary();
      expect(stateSha256, fleet.logs()).toBe(faultFree);
      const all = ITERATIONS * EXPERIENCES;
      expect(ppo.experiences).toMatchObject({ admitted: all, trained: all, dropped: 0, buffered: 0 });
      // What was durable when something was lost is in the log to the end, at the same place.
      expect(countOf(left, "StepCommitted")).toBeGreaterThan(countOf(records, "StepCommitted"));
      const whole = await storedRecords(connection, fleet.runName, REPLICAS);
      for (const part of [records, left]) expect(whole.slice(0, part.length)).toEqual(part);
    });
  },
);

/** Repeats what fails while servers elect and copies catch up. */
async function untilIt<T>(attempt: () => Promise<T>, patienceMs = 60_000): Promise<T> {
  const deadlineMs = performance.now() + patienceMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() > deadlineMs) throw error;
      await sleep(200);
    }
  }
}
