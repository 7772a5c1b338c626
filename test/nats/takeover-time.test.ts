/**
 * How long a run stands still when its coordinator is killed: prints the times of each takeover and their median.
 * TROUPE_TAKEOVERS (default 3) says how many, TROUPE_LEASE_TTL_MS (default 5000, the config's) what lease they have.
 */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sleep } from "../../src/shared/abort.js";
import { PATIENCE_MS, RunFolder } from "../helpers/tiny-run.js";
import { Fleet, type FleetProcess } from "./fleet.js";
import { hasNatsServer, NatsServer, WHY_SKIPPED } from "./nats-server.js";

const TAKEOVERS = Number(process.env.TROUPE_TAKEOVERS ?? 3);
const LEASE_TTL_MS = Number(process.env.TROUPE_LEASE_TTL_MS ?? 5_000);

describe.skipIf(!hasNatsServer)(`time to take over${WHY_SKIPPED}`, { timeout: 4 * PATIENCE_MS }, () => {
  const inputs = new RunFolder();
  let server: NatsServer;
  let fleet: Fleet;
  beforeAll(async () => {
    server = await NatsServer.start();
    // Writes the inputs; the run itself is not needed.
    await (await inputs.start("inputs", ["--set", "stages=[sft]"])).finish();
  }, PATIENCE_MS);
  afterAll(async () => {
    await fleet?.stop();
    await inputs.remove();
    await server?.stop();
  });

  it("is the lease and a few seconds more, until new work is done", async () => {
    fleet = new Fleet({
      folder: join(inputs.path, "fleet"),
      config: join(inputs.path, "input", "tiny.yaml"),
      nats: server.url,
      leaseTtlMs: LEASE_TTL_MS,
      sets: ["ppo.iterations=400", "checkpoint.everyIterations=20"],
      areApart: true,
    });
    let leader: FleetProcess = fleet.coordinator("coordinator-0");
    await fleet.until(() => true);
    fleet.worker("rollout", "rollout-0");
    fleet.worker("learner", "learner-0");
    let before = await fleet.until(({ stage, iteration }) => stage === "ppo" && iteration >= 1);

    const times: { listens: number; joined: number; works: number }[] = [];
    for (let n = 1; n <= TAKEOVERS; n++) {
      const standby = fleet.coordinator(`coordinator-${n}`);
      await sleep(3_000); // so that it has seen the leader's lease
      before = (await fleet.status()) ?? before;
      leader.child.kill("SIGKILL");
      const killedMs = performance.now();
      const since = () => performance.now() - killedMs;
      const { epoch } = before;
      const first = await fleet.until((status) => status.epoch > epoch, 60_000);
      const listens = since();
      await fleet.until((status) => status.epoch > epoch && status.workers.length === 2, 60_000);
      const joined = since();
      before = await fleet.until(
        ({ ledger, optimizerStep }) =>
          optimizerStep > first.optimizerStep || Number(ledger?.admitted) > Number(first.ledger?.admitted),
        60_000,
      );
      times.push({ listens, joined, works: since() });
      leader = standby;
    }
    const seconds = (ms: number) => (ms / 1000).toFixed(2);
    console.log(
      [
        `seconds after SIGKILL, lease ${seconds(LEASE_TTL_MS)} s: standby listens / workers joined / new work done`,
        ...times.map((t) => `  ${seconds(t.listens)} / ${seconds(t.joined)} / ${seconds(t.works)}`),
        `median of ${times.length}: ${(["listens", "joined", "works"] as const)
          .map((key) => seconds(medianOf(times.map((t) => t[key]))))
          .join(" / ")}`,
      ].join("\n"),
    );
    expect(medianOf(times.map((t) => t.joined))).toBeLessThan(LEASE_TTL_MS + 10_000);
  });
});

const medianOf = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
