/** The servers of deploy/nats/nats.conf: encrypted, for coordinators, and for workers that may ask one question. */
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { jetstreamManager } from "@nats-io/jetstream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { connectNats } from "../../src/coordinator/journal/nats-connection.js";
import { openNatsLog } from "../../src/coordinator/journal/nats-log.js";
import { takeLead } from "../../src/coordinator/standby.js";
import { createLogger } from "../../src/observability/logger.js";
import { writeCertificates } from "../../src/rpc/certificate-files.js";
import { sleep } from "../../src/shared/abort.js";
import { parseCoordinatorAddresses } from "../../src/worker/coordinator-addresses.js";
import { epoch, epochsOf, failureOf } from "../unit/coordinator/journal/durable-log-contract.js";
import { read } from "../unit/deploy/repository.js";
import { hasNatsServer, NatsCluster, WHY_SKIPPED } from "./nats-server.js";

const PASSWORDS = { coordinator: randomUUID(), worker: randomUUID() };
/** The run that nats.conf lets workers ask for. */
const RUN = "my";

describe.skipIf(!hasNatsServer)(`nats servers of deploy/nats${WHY_SKIPPED}`, () => {
  let cluster: NatsCluster;
  let folder: string;
  const file = (...names: string[]) => join(folder, ...names);
  const natsAs = (user: keyof typeof PASSWORDS) => ({
    ...{ servers: cluster.url.split(","), run: RUN, replicas: 3 },
    ...{ tokenFile: file(user), caFile: file("tls", "ca.crt") },
  });

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "troupe-nats-access-"));
    for (const authority of ["tls", "other"])
      await writeCertificates(file(authority), {
        hosts: [],
        days: 2,
        areForPeers: true,
        now: new Date(),
      });
    for (const [user, password] of Object.entries(PASSWORDS))
      writeFileSync(file(user), `${user} ${password}\n`, { mode: 0o600 });
    writeFileSync(file("wrong"), "coordinator wrong\n", { mode: 0o600 });
    // Names, ports and folders are the test's own; all else is as it is deployed.
    const config = read("deploy/nats/nats.conf")
      .replaceAll("/etc/nats/", file("tls/"))
      .replace(/^(http:|  store_dir:).*$/gm, "");
    writeFileSync(file("nats.conf"), config);
    cluster = await NatsCluster.start(["--config", file("nats.conf")], {
      NATS_COORDINATOR_PASSWORD: JSON.stringify(PASSWORDS.coordinator),
      NATS_WORKER_PASSWORD: JSON.stringify(PASSWORDS.worker),
    });
  });
  afterAll(async () => {
    await cluster?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const lead = async () => {
    for (;;) {
      try {
        return await takeLead({
          ...{ nats: natsAs("coordinator"), leaseTtlMs: 5_000, name: RUN, knownRunId: undefined },
          ...{ standby: true, mayContinue: false, logger: createLogger({ role: "coordinator" }) },
          signal: new AbortController().signal,
        });
      } catch {
        await sleep(500); // the servers have not found each other yet
      }
    }
  };

  it("keep a coordinator's journal in three copies, and tell workers where it is and nothing else", async () => {
    const leadership = (await lead())!;
    leadership.announce("10.1.2.3:7070", "http://127.0.0.1:1");
    const log = await openNatsLog(leadership.connection, { run: RUN, replicas: 3, owner: "test" });
    await log.append([epoch(1)]);
    expect(await epochsOf(log)).toEqual([1]);

    const env = { TROUPE_NATS_TOKEN_FILE: file("worker"), TROUPE_NATS_CA_FILE: file("tls", "ca.crt") };
    const asked = parseCoordinatorAddresses(`nats://${cluster.url}/${RUN}`, { env });
    await expect.poll(() => asked.next().catch(String), { timeout: 10_000 }).toBe("10.1.2.3:7070");

    const worker = await connectNats(natsAs("worker"), "test", "_INBOX_WORKER");
    const manager = await jetstreamManager(worker, { checkAPI: false, timeout: 1_000 });
    const { streams } = manager;
    const log1 = `TROUPE_${RUN}_LOG`;
    await expect(streams.getMessage(log1, { seq: 1 })).rejects.toThrow(/permission/i);
    await expect(streams.info(log1)).rejects.toThrow(/permission/i);
    await expect(streams.purge(log1)).rejects.toThrow(/permission/i);
    await expect(streams.delete(log1)).rejects.toThrow(/permission/i);
    for (const subject of [`troupe.${RUN}.LOG`, `$KV.TROUPE_${RUN}.leader`])
      await expect(worker.request(subject, "{}", { timeout: 1_000 })).rejects.toThrow(/permission/i);
    // Nor may it listen to what coordinators are answered.
    const overheard = worker.subscribe("_INBOX.>");
    await expect(overheard.closed.then((error) => Promise.reject(error))).rejects.toThrow(/permission/i);
    await worker.close();

    await log.append([epoch(2)]);
    expect(await epochsOf(log)).toEqual([1, 2]);
    await log.close();
    await leadership.resign(undefined);
  });

  it("refuse a wrong password, and are refused when another authority signed them", async () => {
    const wrong = await failureOf(
      connectNats({ ...natsAs("coordinator"), tokenFile: file("wrong") }, "test"),
    );
    expect(wrong.code).toBe("AUTH");
    const stranger = { ...natsAs("coordinator"), caFile: file("other", "ca.crt") };
    expect((await failureOf(connectNats(stranger, "test"))).code).toBe("UNREACHABLE");
  });
});
