/** Two learners that sum among themselves stop reaching each other, and both still reach the coordinator. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeCertificates } from "../../src/rpc/certificate-files.js";
import { sleep } from "../../src/shared/abort.js";
import { packageRoot } from "../../src/shared/paths.js";
import { PATIENCE_MS, RunFolder, type TinySummary } from "../helpers/tiny-run.js";
import { ThreeHosts, whyNoThreeHosts } from "./three-hosts.js";

const whyNot = whyNoThreeHosts();
const PORT = 7071;

describe.skipIf(whyNot !== "")(
  `a cut between two learners${whyNot === "" ? "" : ` (skipped: ${whyNot})`}`,
  { timeout: 2 * PATIENCE_MS },
  () => {
    const inputs = new RunFolder();
    const hosts = new ThreeHosts();
    const file = (...names: string[]) => join(inputs.path, ...names);
    const log = file("hosts.log");
    let expected: string;

    beforeAll(async () => {
      const alone = ["cluster.rollouts=1", "cluster.learners=1", "ppo.iterations=4"];
      const twin = await inputs.start(
        "one-host",
        alone.flatMap((set) => ["--set", set]),
      );
      expected = (await twin.finish()).stateSha256;
      hosts.up();
      const addresses = (["left", "right"] as const).map((host) => hosts.addressFor(host));
      await writeCertificates(file("tls"), { hosts: addresses, days: 2, now: new Date() });
      writeFileSync(file("token"), `${randomBytes(16).toString("hex")}\n`, { mode: 0o600 });
    }, PATIENCE_MS);
    afterAll(async () => {
      await hosts.stop();
      await inputs.remove();
    });

    it("costs neither of them its place, and the run no bit: the coordinator sums for them", async () => {
      const bin = [process.execPath, join(packageRoot, "bin", "troupe.mjs")];
      const runDir = file("three-hosts");
      mkdirSync(runDir);
      const access = ["--token-file", file("token")];
      const sets = ["cluster.allReduce=sharded", "cluster.bulkChannel=on", "ppo.iterations=4"];
      const coordinator = hosts.spawn(
        "middle",
        [
          ...[...bin, "coordinator", await inputs.configPath(), "--run-dir", runDir],
          ...["--host", "0.0.0.0", "--port", String(PORT), ...access],
          ...["--tls-cert", file("tls", "server.crt"), "--tls-key", file("tls", "server.key")],
          ...[...sets, "cluster.minLearners=2"].flatMap((set) => ["--set", set]),
        ],
        { log },
      );
      const joinFrom = (host: "left" | "right", role: "learner" | "rollout") =>
        hosts.spawn(
          host,
          [
            ...[...bin, role, "--coordinator", `${hosts.addressFor(host)}:${PORT}`, ...access],
            ...["--tls-ca", file("tls", "ca.crt"), "--worker-id", `${role}-${host}`],
          ],
          { log },
        );
      joinFrom("left", "learner");
      joinFrom("right", "learner");
      joinFrom("left", "rollout");
      const ended = once(coordinator, "exit");
      while (!existsSync(join(runDir, "models", "sft")) && coordinator.exitCode === null) await sleep(20);
      hosts.letThrough(false);
      const [code] = (await ended) as [number | null];
      const said = readFileSync(log, "utf8").split("\n").slice(-60).join("\n");
      expect(code, said).toBe(0);
      const { stateSha256 } = JSON.parse(readFileSync(join(runDir, "summary.json"), "utf8")) as TinySummary;
      expect(stateSha256).toBe(expected);
      const lines = readFileSync(join(runDir, "logs", "coordinator.ndjson"), "utf8");
      expect(lines).toMatch(/from now on the coordinator sums for them/);
      expect(lines).not.toMatch(/did not come in time|no heartbeat within/);
      // Once was enough.
      expect(lines.match(/it will be done again/g)).toHaveLength(1);
    });
  },
);
