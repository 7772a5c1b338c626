/**
 * A worker that does nothing but live: it registers, is never given work, and beats often, from a process that is
 * otherwise idle. So its round trips are the coordinator's, not those of a process that plays thousands.
 */
import { randomUUID } from "node:crypto";
import { deadlineIn } from "../rpc/deadlines.js";
import { PROTOCOL_VERSION } from "../rpc/load-proto.js";
import type { HeartbeatReply__Output } from "../rpc/generated/troupe/v1/HeartbeatReply.js";
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
    probe.beating = probe.beat(await probe.register());
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

  private register(): Promise<RegisterReply__Output> {
    return new Promise((resolve, reject) =>
      this.clients.membership.register(
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
  }

  private async beat({ sender }: RegisterReply__Output): Promise<void> {
    const { signal } = this.stopping;
    let known = sender;
    while (!signal.aborted) {
      const sentMs = performance.now();
      const answer = await new Promise<HeartbeatReply__Output | null>((resolve) =>
        this.clients.membership.heartbeat(
          { sender: known },
          { deadline: deadlineIn(PATIENCE_MS) },
          (error, reply) => resolve(error === null ? (reply as HeartbeatReply__Output) : null),
        ),
      );
      // One that was never answered counts as long as it took to find out.
      if (answer !== null || !signal.aborted) this.roundTrips.push(performance.now() - sentMs);
      // Refusals are no heartbeats: who was given up joins again, when it is let in.
      if (answer?.directive === "REGISTER_AGAIN" && !signal.aborted)
        known = (await this.register().catch(() => ({ sender: known }))).sender;
      await sleep(EVERY_MS, signal);
    }
  }
}
