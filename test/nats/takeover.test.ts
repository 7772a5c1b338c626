/** A coordinator is lost, another goes on: the same parameters to the last bit, every experience accounted for. */
import { existsSync } from "node:fs";
import { rename } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { NatsConnection } from "@nats-io/transport-node";
import { connectNats } from "../../src/coordinator/journal/nats-connection.js";
import { PATIENCE_MS, RunFolder } from "../helpers/tiny-run.js";
import { EXPERIENCES, Fleet, isCollecting, isUpdating, type FleetOptions } from "./fleet.js";
import { freePort, hasNatsServer, NatsServer, WHY_SKIPPED } from "./nats-server.js";
import { admissionsOf, countOf, storedRecords } from "./stored-records.js";

const LEASE_TTL_MS = 3_000;
/** So many that a fast machine does not end a run before it is disturbed. */
const ITERATIONS = 16;
const LONG = `ppo.iterations=${ITERATIONS}`;

describe.skipIf(!hasNatsServer)(`taking over${WHY_SKIPPED}`, { timeout: 2 * PATIENCE_MS }, () => {
  const inputs = new RunFolder();
  let server: NatsServer;
  let connection: NatsConnection;
  let faultFree: string;
  let fleet: Fleet;
  let fleets = 0;

  beforeAll(async () => {
    server = await NatsServer.start();
    connection = await connectNats(
      { servers: [server.url], tokenFile: null, replicas: 1, run: "unused" },
      "test",
    );
    // A run whose journal is on this machine's disk: where it is kept must not change a result.
    const sets = [LONG, "cluster.rollouts=1", "cluster.learners=1"].flatMap((set) => ["--set", set]);
    faultFree = (await (await inputs.start("fault-free", sets)).finish()).stateSha256;
  }, PATIENCE_MS);
  afterEach(() => fleet?.stop());
  afterAll(async () => {
    await inputs.remove();
    await connection?.close();
    await server?.stop();
  });

  const newFleet = (more: Partial<FleetOptions> = {}) =>
    (fleet = new Fleet({
      folder: join(inputs.path, `fleet-${fleets++}`),
      config: join(inputs.path, "input", "tiny.yaml"),
      nats: server.url,
      leaseTtlMs: LEASE_TTL_MS,
      sets: [LONG],
      ...more,
    }));

  const expectSameOutcome = () => {
    const { stateSha256, ppo } = fleet.summary();
    expect(stateSha256, fleet.logs()).toBe(faultFree);
    const { admitted, trained, dropped, buffered } = ppo.experiences;
    const all = ITERATIONS * EXPERIENCES;
    expect({ admitted, trained, dropped, buffered }).toEqual({
      admitted: all,
      trained: all,
      dropped: 0,
      buffered: 0,
    });
  };

  it("a standby goes on within 10 s when the coordinator is killed while collecting, and again in the middle of an update", async () => {
    newFleet();
    const first = fleet.coordinator("first");
    await fleet.until(() => true);
    const second = fleet.coordinator("second");
    const workers = [fleet.worker("rollout", "rollout-0"), fleet.worker("learner", "learner-0")];
    const goesOn = (epoch: number) =>
      fleet.until((status) => status.epoch > epoch && status.workers.length === 2, 30_000);

    const collecting = await fleet.until(isCollecting(1));
    expect(await fleet.leaderPid()).toBe(first.child.pid);
    first.child.kill("SIGKILL");
    let killedMs = performance.now();
    const firstLeft = await storedRecords(connection, fleet.runName);
    const taken = await goesOn(collecting.epoch);
    expect(performance.now() - killedMs).toBeLessThan(10_000);
    expect(await fleet.leaderPid()).toBe(second.child.pid);
    expect(Number(taken.ledger?.admitted)).toBeGreaterThanOrEqual(admissionsOf(firstLeft));

    const third = fleet.coordinator("third");
    const updating = await fleet.until(isUpdating(2));
    second.child.kill("SIGKILL");
    killedMs = performance.now();
    const secondLeft = await storedRecords(connection, fleet.runName);
    await goesOn(updating.epoch);
    expect(performance.now() - killedMs).toBeLessThan(10_000);

    expect(await third.exited, fleet.logs()).toBe(0);
    expect(await Promise.all(workers.map(({ exited }) => exited))).toEqual([0, 0]);
    expectSameOutcome();
    // What either of them had made durable is in the log to the end, at the same place.
    const all = await storedRecords(connection, fleet.runName);
    expect(countOf(secondLeft, "StepCommitted")).toBeGreaterThan(countOf(firstLeft, "StepCommitted"));
    for (const left of [firstLeft, secondLeft]) expect(all.slice(0, left.length)).toEqual(left);
  });

  it("a standby with a run directory of its own goes on when the coordinator is killed in the middle of PPO, back in the first one's too", async () => {
    newFleet({ areApart: true });
    const first = fleet.coordinator("first");
    await fleet.until(() => true);
    const second = fleet.coordinator("second");
    fleet.worker("rollout", "rollout-0");
    // A learner that is lost with its coordinator has to find the checkpoint, too.
    const learner = fleet.worker("learner", "learner-0");
    const { epoch } = await fleet.until(isUpdating(2));
    const killedMs = performance.now();
    for (const { child } of [first, learner]) child.kill("SIGKILL");
    const firstLeft = await storedRecords(connection, fleet.runName);
    expect(countOf(firstLeft, "CheckpointSaved")).toBeGreaterThan(0);
    // Nothing may be found where the first coordinator was.
    await rename(fleet.runDirOf("first"), `${fleet.runDirOf("first")}-lost`);
    fleet.worker("learner", "learner-1");
    await fleet.until((status) => status.epoch > epoch, 30_000);
    expect(performance.now() - killedMs).toBeLessThan(10_000);
    expect(await fleet.leaderPid()).toBe(second.child.pid);

    // And back again, to a directory that has an older state of the run.
    await rename(`${fleet.runDirOf("first")}-lost`, fleet.runDirOf("first"));
    const third = fleet.coordinator("first");
    await fleet.until(isUpdating(3));
    second.child.kill("SIGKILL");
    const secondLeft = await storedRecords(connection, fleet.runName);
    expect(await third.exited, fleet.logs()).toBe(0);
    expectSameOutcome();
    expect(existsSync(join(fleet.runDirOf("first"), "models", "ppo", "model.safetensors"))).toBe(true);
    const all = await storedRecords(connection, fleet.runName);
    for (const left of [firstLeft, secondLeft]) expect(all.slice(0, left.length)).toEqual(left);
  });

  it("a coordinator that was paused past its lease finds itself replaced, ends with 75 and changes nothing", async () => {
    newFleet();
    const first = fleet.coordinator("first");
    await fleet.until(() => true);
    const second = fleet.coordinator("second");
    fleet.worker("rollout", "rollout-0");
    fleet.worker("learner", "learner-0");
    const { epoch } = await fleet.until(isUpdating(1));
    first.child.kill("SIGSTOP");
    await fleet.until((status) => status.epoch > epoch, 30_000);
    first.child.kill("SIGCONT");
    expect(await first.exited, fleet.logs()).toBe(75);
    expect(await second.exited, fleet.logs()).toBe(0);
    expectSameOutcome();
  });

  it("a standby takes over at once from a coordinator that is told to stop, and one still waiting ends with the run", async () => {
    newFleet();
    const first = fleet.coordinator("first");
    await fleet.until(() => true);
    const others = [fleet.coordinator("second"), fleet.coordinator("third")];
    fleet.worker("rollout", "rollout-0");
    fleet.worker("learner", "learner-0");
    const { epoch } = await fleet.until(isUpdating(0));
    first.child.kill("SIGTERM");
    await fleet.until((status) => status.epoch > epoch, 30_000);
    expect(await first.exited, fleet.logs()).toBe(0);
    // On a starved machine the second may in its turn be replaced by the third.
    const exits = await Promise.all(others.map(({ exited }) => exited));
    expect(exits, fleet.logs()).toContain(0);
    for (const code of exits) expect([0, 75], fleet.logs()).toContain(code);
    expectSameOutcome();
  });

  it("workers that were given both addresses go to the one that leads", async () => {
    newFleet();
    const ports = [await freePort(), await freePort()];
    const listening = (port: number) => ["--standby", "--port", String(port)];
    const first = fleet.coordinator("first", listening(ports[0]));
    await fleet.until(() => true);
    const second = fleet.coordinator("second", listening(ports[1]));
    const addresses = ports.map((port) => `127.0.0.1:${port}`).join(",");
    fleet.worker("rollout", "rollout-0", addresses);
    fleet.worker("learner", "learner-0", addresses);
    await fleet.until(isUpdating(0));
    first.child.kill("SIGKILL");
    expect(await second.exited, fleet.logs()).toBe(0);
    expectSameOutcome();
  });

  it("troupe stop ends coordinators and workers everywhere with 0, and --standby --resume auto goes on", async () => {
    newFleet();
    const coordinators = [fleet.coordinator("first")];
    await fleet.until(() => true);
    coordinators.push(fleet.coordinator("second"));
    const workers = [fleet.worker("rollout", "rollout-0"), fleet.worker("learner", "learner-0")];
    await fleet.until(isUpdating(1));
    expect(await fleet.stopRun("first")).toBe(0);
    for (const { exited } of [...coordinators, ...workers]) expect(await exited, fleet.logs()).toBe(0);
    expect(await fleet.coordinator("third").exited, fleet.logs()).toBe(0);
    expect(fleet.logs()).toContain("the run was stopped: asked to stop");

    const last = fleet.coordinator("last", ["--standby", "--resume", "auto"]);
    fleet.worker("rollout", "rollout-1");
    fleet.worker("learner", "learner-1");
    expect(await last.exited, fleet.logs()).toBe(0);
    expectSameOutcome();
  });

  it("a coordinator whose machine lacks the data ends alone, and another leads", async () => {
    newFleet();
    const lacking = fleet.coordinator("first", ["--standby", "--set", "data.path=/does/not/exist"]);
    expect(await lacking.exited, fleet.logs()).toBe(65);
    const second = fleet.coordinator("second");
    await fleet.until(() => true);
    expect(await fleet.leaderPid()).toBe(second.child.pid);
  });

  it("a coordinator without --standby refuses to join one that leads, and a run of another directory", async () => {
    newFleet();
    fleet.coordinator("first");
    await fleet.until(() => true);
    expect(await fleet.coordinator("second", []).exited, fleet.logs()).toBe(73);
  });
});
