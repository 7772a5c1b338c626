/**
 * A worker that does nothing but live: it registers, is never given work, and beats often, from a process that is
 * otherwise idle. So its round trips are the coordinator's, not those of a process that plays thousands.
 */
import { randomUUID } from "node:crypto";
import { deadlineIn } from "../rpc/deadlines.js";
import { PROTOCOL_VERSION } from "../rpc/load-proto.js";
import type { RegisterReply__Output } from "../rpc/generated/troupe/v1/RegisterReply.js";
import { sleep } from "../shared/abort.js";
import { openClients, type Clients } from "../worker/coordinator-link.js";

const EVERY_MS = 50;
const PATIENCE_MS = 60_000;

export class HeartbeatProbe {
  /** Milliseconds, since the last `take`. */
  private roundTrips: number[] = [];
  private readonly stopping = new AbortController();
  private beating: Promise<void> = Promise.resolve();

  private constructor(private readonly clients: Clients) {}

  static async start(address: string, token: string): Promise<HeartbeatProbe> {
    const clients = openClients(address, { token });
    const probe = new HeartbeatProbe(clients);
    const reply = await new Promise<RegisterReply__Output>((resolve, reject) =>
      clients.membership.register(
        {
          role: "ROLE_ROLLOUT",
          workerId: "probe",
          host: "probe",
          pid: process.pid,
          metricsAddress: "127.0.0.1:1",
          protocolVersion: PROTOCOL_VERSION,
          requestId: randomUUID(),
          position: null,
        },
        { deadline: deadlineIn(PATIENCE_MS) },
        (error, answer) => (error ? reject(error) : resolve(answer as RegisterReply__Output)),
      ),
    );
    probe.beating = probe.beat(reply);
    return probe;
  }

  take(): number[] {
    const taken = this.roundTrips;
    this.roundTrips = [];
    return taken;
  }

  async stop(): Promise<void> {
    this.stopping.abort();
    await this.beating;
    for (const client of Object.values(this.clients)) (client as { close(): void }).close();
  }

  private async beat({ sender }: RegisterReply__Output): Promise<void> {
    const { signal } = this.stopping;
    while (!signal.aborted) {
      const sentMs = performance.now();
      const isAnswered = await new Promise<boolean>((resolve) =>
        this.clients.membership.heartbeat(
          { sender, progress: 0 },
          { deadline: deadlineIn(PATIENCE_MS) },
          (error) => resolve(error === null),
        ),
      );
      // One that was never answered counts as long as it took to find out.
      if (isAnswered || !signal.aborted) this.roundTrips.push(performance.now() - sentMs);
      await sleep(EVERY_MS, signal);
    }
  }
}
