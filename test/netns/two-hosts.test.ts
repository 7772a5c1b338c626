/** A coordinator and its workers on two hosts; the network between them fails in the middle of the work. */
import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { once } from "node:events";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeCertificates } from "../../src/rpc/certificate-files.js";
import { ControlClient, type RunStatus } from "../../src/rpc/control-client.js";
import { sleep } from "../../src/shared/abort.js";
import { packageRoot } from "../../src/shared/paths.js";
import { PATIENCE_MS, RunFolder, type TinySummary } from "../helpers/tiny-run.js";
import { TwoHosts, whyNoTwoHosts } from "./two-hosts.js";

const whyNot = whyNoTwoHosts();
const EXPERIENCES = 16;
const STEPS = 4;
const LEASE_TTL_MS = 3_000;
const PORT = 7070;

/** More than the test waits for, so that a fast machine does not end the run before the link is cut. */
const ITERATIONS = 12;

/** In an iteration, the first one or, had it gone by unseen, a later one. */
const hasBegun = (status: RunStatus, first: number) =>
  status.stage === "ppo" && status.iteration >= first && status.workers.length > 0;
const isCollecting = (first: number) => (status: RunStatus) =>
  hasBegun(status, first) &&
  Number(status.ledger?.buffered) > 0 &&
  Number(status.ledger?.buffered) < EXPERIENCES;
const isUpdating = (first: number) => (status: RunStatus) =>
  hasBegun(status, first) &&
  status.optimizerStep > status.iteration * STEPS &&
  status.optimizerStep < (status.iteration + 1) * STEPS;

describe.skipIf(whyNot !== "")(
  `two hosts${whyNot === "" ? "" : ` (skipped: ${whyNot})`}`,
  { timeout: 2 * PATIENCE_MS },
  () => {
    const inputs = new RunFolder();
    const hosts = new TwoHosts();
    const file = (...names: string[]) => join(inputs.path, ...names);
    const log = file("hosts.log");
    let expected: string;
    let control: ControlClient;

    beforeAll(async () => {
      const sets = [`ppo.iterations=${ITERATIONS}`, "cluster.rollouts=1", "cluster.learners=1"];
      const twin = await inputs.start(
        "one-host",
        sets.flatMap((set) => ["--set", set]),
      );
      expected = (await twin.finish()).stateSha256;
      hosts.up();
      await writeCertificates(file("tls"), {
        hosts: [hosts.address, hosts.adminAddress],
        days: 2,
        now: new Date(),
      });
      const tokens = ["rollout", "learner", "control"].map((role) => [role, randomBytes(16).toString("hex")]);
      writeFileSync(file("token"), tokens.map((line) => line.join(" ") + "\n").join(""), { mode: 0o600 });
      const token = tokens[2][1];
      control = new ControlClient(`${hosts.adminAddress}:${PORT}`, {
        token,
        tls: { ca: file("tls", "ca.crt") },
      });
    }, PATIENCE_MS);
    afterAll(async () => {
      control?.close();
      await hosts.stop();
      await inputs.remove();
    });

    const said = () => readFileSync(log, "utf8").split("\n").slice(-60).join("\n");
    const until = async (isSo: (status: RunStatus) => boolean): Promise<RunStatus> => {
      const deadlineMs = performance.now() + PATIENCE_MS;
      while (performance.now() < deadlineMs) {
        const status = await control.status().catch(() => undefined);
        if (status !== undefined && isSo(status)) return status;
        await sleep(3);
      }
      throw new Error(`that did not happen\n${said()}`);
    };
    /** Cuts the link for longer than a lease, until the coordinator has given everybody up. */
    const partition = async () => {
      hosts.cut();
      const { workers } = await until((status) => status.workers.length === 0);
      expect(workers).toEqual([]);
      hosts.heal();
    };

    it("end with the state of one host after the link was cut while collecting and in the middle of an update", async () => {
      const bin = [process.execPath, join(packageRoot, "bin", "troupe.mjs")];
      const runDir = file("two-hosts");
      mkdirSync(runDir);
      const sets = [
        `ppo.iterations=${ITERATIONS}`,
        `cluster.leaseTtlMs=${LEASE_TTL_MS}`,
        "cluster.heartbeatIntervalMs=500",
      ];
      const access = ["--token-file", file("token")];
      const coordinator = hosts.spawn(
        "coordinator",
        [
          ...[...bin, "coordinator", await inputs.configPath(), "--run-dir", runDir],
          ...["--host", "0.0.0.0", "--port", String(PORT), ...access],
          ...["--tls-cert", file("tls", "server.crt"), "--tls-key", file("tls", "server.key")],
          ...sets.flatMap((set) => ["--set", set]),
        ],
        { log },
      );
      const workers = hosts.spawn(
        "workers",
        [
          ...[
            ...bin,
            "launch",
            "--coordinator",
            `${hosts.address}:${PORT}`,
            "--rollouts",
            "2",
            "--learners",
            "2",
          ],
          ...[...access, "--tls-ca", file("tls", "ca.crt"), "--log-dir", file("worker-logs")],
        ],
        { log, hidden: runDir },
      );
      const ended = Promise.all([coordinator, workers].map((child) => once(child, "exit")));
      await until(isCollecting(1));
      await partition();
      await until(isUpdating(2));
      await partition();
      const codes = (await ended).map(([code]) => code as number | null);
      expect(codes, said()).toEqual([0, 0]);

      const { stateSha256, ppo } = JSON.parse(
        readFileSync(join(runDir, "summary.json"), "utf8"),
      ) as TinySummary;
      expect(stateSha256).toBe(expected);
      const { admitted, trained, dropped, buffered } = ppo.experiences;
      const all = ITERATIONS * EXPERIENCES;
      expect({ admitted, trained, dropped, buffered }).toEqual({
        admitted: all,
        trained: all,
        dropped: 0,
        buffered: 0,
      });
      const lines = readFileSync(join(runDir, "logs", "coordinator.ndjson"), "utf8");
      // Cut twice, four workers: nobody was lost in any other way than by silence.
      expect(lines.match(/"reason":"[^"]*lease[^"]*"/g)?.length, lines).toBeGreaterThanOrEqual(2);
    });
  },
);
