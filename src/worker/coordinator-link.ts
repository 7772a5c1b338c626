/**
 * A worker's tie to the coordinator: join, stay, come back, leave.
 *
 * States of a worker process:
 *   connecting  no session; registering, with backoff, for at most RECONNECT_BUDGET_MS
 *   serving     registered; heartbeats every interval; the role's own stream is open
 *   draining    told to leave (scale-down, end of run, SIGTERM): takes nothing new, hands back what it holds
 *   gone        left; the process exits 0
 * A session ends when the coordinator says so or stays silent for a lease; the link then connects again.
 */
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { Channel, status, type ChannelOptions, type ServiceError } from "@grpc/grpc-js";
import { configSchema, type Config } from "../config/schema.js";
import type { Logger } from "../observability/logger.js";
import { CONTROL_DEADLINE_MS, RECONNECT_BUDGET_MS, deadlineIn } from "../rpc/deadlines.js";
import { GradientChannel } from "../rpc/gradient-channel.js";
import type { HeartbeatReply__Output } from "../rpc/generated/troupe/v1/HeartbeatReply.js";
import type { RegisterReply__Output } from "../rpc/generated/troupe/v1/RegisterReply.js";
import type { Sender } from "../rpc/generated/troupe/v1/Sender.js";
import { PROTOCOL_VERSION, troupe } from "../rpc/load-proto.js";
import { fromServiceError, isRetryable } from "../rpc/status.js";
import { clientChannel, explainTlsFailure, splitAddress, type Access } from "../rpc/tls.js";
import { sleep } from "../shared/abort.js";
import { parseCoordinatorAddresses, type CoordinatorAddresses } from "./coordinator-addresses.js";
import type { WorkersTogether } from "./worker-options.js";
import { TroupeError, protocolError } from "../shared/errors.js";
import type { WorkerRole } from "../shared/roles.js";

/** Where there is more than one address, one that does not answer must not take the time of the others. */
const OTHERS_WAIT_MS = 3_000;
/** Fence ourselves a little before the coordinator's lease on us runs out. */
const SILENCE_SHARE = 0.8;
/** Between two attempts to join; short, because a coordinator that restarts is back within a second or two. */
const LONGEST_DELAY_MS = 500;

export interface LinkOptions {
  readonly role: WorkerRole;
  /** Where the coordinator's gRPC server is, or may be: see coordinator-addresses.ts. */
  readonly coordinator: string;
  readonly access: Access;
  /** Wanted name; empty lets the coordinator choose. Kept over reconnects. */
  readonly workerId?: string;
  readonly metricsAddress: string;
  /** Told when joining; the coordinator refuses workers that their machine cannot hold. @default not checked */
  readonly machine?: WorkersTogether & { readonly memoryBytes: number };
  readonly logger: Logger;
  /** Aborts when the process was told to end: drain, then leave. */
  readonly signal: AbortSignal;
  /** What this process holds right now; sent when joining and with every heartbeat. */
  readonly holdings: () => Holdings;
  /** What is held belongs to another run than the one that answers now: let it go. */
  readonly onOtherRun: () => void;
  /** @param isReady whether the coordinator may give this process work: others may leave for it */
  readonly onHeartbeat: (roundTripMs: number, isReady: boolean) => void;
  readonly onReconnect: () => void;
}

export interface Holdings {
  /** Learners: the stage and the last optimizer step applied in it; null for a fresh process. */
  readonly position?: {
    readonly stage: string;
    readonly step: number;
    readonly digest: string;
    /** What it voted for without hearing what became of it. */
    readonly voted: { readonly step: number; readonly digest: string } | null;
  } | null;
  /** Rollouts: the policy version loaded; undefined before the first. */
  readonly policyVersion?: number;
  /** Rollouts: the tasks held; `tokens` grows while one is worked on. */
  readonly tasks?: readonly { readonly taskId: string; readonly attempt: number; readonly tokens: number }[];
}

/** One registration. `signal` aborts when it ended, FENCED or UNREACHABLE; `draining` when no new work may be taken. */
export interface Session {
  readonly sender: Sender;
  readonly config: Config;
  readonly clients: Clients;
  /** Name or IP address at which the coordinator is reached. */
  readonly coordinatorHost: string;
  readonly signal: AbortSignal;
  readonly draining: AbortSignal;
}

export interface Clients {
  readonly membership: InstanceType<typeof troupe.v1.Membership>;
  readonly rollout: InstanceType<typeof troupe.v1.RolloutService>;
  readonly learner: InstanceType<typeof troupe.v1.LearnerService>;
  readonly artifact: InstanceType<typeof troupe.v1.ArtifactService>;
  /** The learner service's AllReduce call. */
  readonly gradients: GradientChannel;
}

/** @throws {TroupeError} CONFIG when a TLS file cannot be used */
export function openClients(address: string, access: Access = {}): Clients {
  const { credentials, options } = clientChannel(address, access);
  // One for all: each of its own would resolve the name, pick and look for a connection to share.
  const { interceptors, ...channelOptions } = options;
  const channelOverride = new Channel(address, credentials, channelOptions as ChannelOptions);
  const shared = { ...channelOptions, interceptors, channelOverride };
  return {
    membership: new troupe.v1.Membership(address, credentials, shared),
    rollout: new troupe.v1.RolloutService(address, credentials, shared),
    learner: new troupe.v1.LearnerService(address, credentials, shared),
    artifact: new troupe.v1.ArtifactService(address, credentials, shared),
    gradients: new GradientChannel(address, access),
  };
}

/**
 * Serves the coordinator until told to drain: `perform` is called once per session and returns when its stream ended.
 * @throws {TroupeError} UNREACHABLE when the coordinator stays away, REPLACED when another process joins under its id, AUTH, CONFIG; whatever `perform` throws that is not about the connection
 */
export async function serveCoordinator(
  options: LinkOptions,
  perform: (session: Session) => Promise<void>,
): Promise<void> {
  const reach = new CoordinatorReach(options);
  let workerId = options.workerId ?? "";
  let runId: string | undefined;
  let wasSilent = false;
  try {
    for (;;) {
      const joined = await register(reach, options, workerId, wasSilent);
      if (joined === undefined) return;
      const { reply } = joined;
      const isOtherRun = runId !== undefined && reply.sender?.runId !== runId;
      if (runId !== undefined) options.onReconnect();
      runId = reply.sender?.runId;
      workerId = reply.sender?.workerId ?? workerId;
      if (isOtherRun) {
        // It was registered with what it held for the old run; the new one must not take that for its own.
        options.onOtherRun();
        continue;
      }
      const end = await serveSession(joined, options, perform);
      if (end === "over") return;
      wasSilent = end === "silent";
      options.logger.warn("session ended, joining again");
      await sleep(200, options.signal);
    }
  } finally {
    reach.close();
  }
}

/** An address and the clients connected to it. */
interface Reached {
  readonly address: string;
  readonly clients: Clients;
}

/** The clients of the coordinator's address, or of the one of its addresses whose turn it is. */
class CoordinatorReach {
  private readonly addresses: CoordinatorAddresses;
  private current: Reached | undefined;

  constructor(private readonly options: Pick<LinkOptions, "coordinator" | "access">) {
    this.addresses = parseCoordinatorAddresses(options.coordinator, { insecure: options.access.insecure });
  }

  /** Where the last attempt went; undefined while no address is known. */
  get address(): string | undefined {
    return this.current?.address;
  }

  /** How long one attempt may take. */
  get patienceMs(): number {
    return this.addresses.hasOthers ? OTHERS_WAIT_MS : CONTROL_DEADLINE_MS;
  }

  async here(): Promise<Reached> {
    return this.current ?? (await this.turn());
  }

  /** Goes on to the next address. @throws {TroupeError} UNREACHABLE when none is known at this moment */
  async turn(): Promise<Reached> {
    const address = await this.addresses.next();
    if (this.current?.address === address) return this.current;
    this.close();
    this.current = { address, clients: openClients(address, this.options.access) };
    return this.current;
  }

  close(): void {
    for (const client of Object.values(this.current?.clients ?? {})) (client as { close(): void }).close();
    this.current = undefined;
  }
}

interface Joined extends Reached {
  readonly reply: RegisterReply__Output;
}

/**
 * @param wasSilent the coordinator spoken to last gave no answer any more: another one is asked before it
 * @returns undefined when told to end meanwhile
 */
async function register(
  reach: CoordinatorReach,
  options: LinkOptions,
  workerId: string,
  wasSilent: boolean,
): Promise<Joined | undefined> {
  const requestId = randomUUID();
  let waitedMs = 0;
  for (
    let delayMs = 100, isFirst = true;
    ;
    delayMs = Math.min(delayMs * 2, LONGEST_DELAY_MS), isFirst = false
  ) {
    if (options.signal.aborted) return undefined;
    const startedMs = performance.now();
    try {
      // A coordinator that ended a session may still be there; after a failure another one may.
      const reached = await (isFirst && !wasSilent ? reach.here() : reach.turn());
      const reply = await new Promise<RegisterReply__Output>((resolve, reject) => {
        reached.clients.membership.register(
          {
            role: options.role === "rollout" ? "ROLE_ROLLOUT" : "ROLE_LEARNER",
            workerId,
            host: hostname(),
            pid: process.pid,
            metricsAddress: options.metricsAddress,
            protocolVersion: PROTOCOL_VERSION,
            requestId,
            position: options.holdings().position ?? null,
            machine: options.machine ?? null,
          },
          { deadline: deadlineIn(reach.patienceMs) },
          (error, reply) => (error ? reject(error) : resolve(reply as RegisterReply__Output)),
        );
      });
      return { ...reached, reply };
    } catch (cause) {
      const doing = `joining the coordinator at ${reach.address ?? options.coordinator}`;
      const error = fromServiceError(cause, doing);
      if (!isRetryable(error)) throw error;
      // A coordinator that is busy speaks the same as before: asking it that too would only add to its work.
      const isBusy = (cause as Partial<ServiceError>).code === status.DEADLINE_EXCEEDED;
      const refused =
        reach.address === undefined || isBusy
          ? undefined
          : await explainTlsFailure(reach.address, options.access.tls);
      if (refused !== undefined) throw refused;
      // A process that was stopped for a minute has not waited a minute: only what an attempt may take counts.
      waitedMs += Math.min(performance.now() - startedMs, reach.patienceMs) + delayMs;
      if (waitedMs > RECONNECT_BUDGET_MS) {
        const reason = error.message.replace(`${doing}: `, "");
        throw new TroupeError(
          "UNREACHABLE",
          `no coordinator answered at ${options.coordinator} for ${RECONNECT_BUDGET_MS / 1000} s (${reason}); start it, or give the address it listens at (grpcAddress in coordinator.json of its run directory)`,
        );
      }
      await sleep(spread(delayMs), options.signal);
    }
  }
}

/** A fleet whose coordinator came back must not knock as one. */
const spread = (delayMs: number): number => delayMs * (0.5 + Math.random());

/** How a session ended: for good (drained or told to stop), with the stream, or in silence. */
type SessionEnd = "over" | "broken" | "silent";

async function serveSession(
  { address, clients, reply }: Joined,
  options: LinkOptions,
  perform: (session: Session) => Promise<void>,
): Promise<SessionEnd> {
  if (reply.sender === null) throw protocolError("RegisterReply.sender: expected a value, got none");
  const sender = reply.sender;
  const config = configSchema.parse(JSON.parse(reply.configJson));
  const ended = new AbortController();
  const drained = new AbortController();
  const onStop = () => drained.abort();
  if (options.signal.aborted) onStop();
  options.signal.addEventListener("abort", onStop, { once: true });
  const { logger } = options;
  logger.info(
    { worker_id: sender.workerId, epoch: sender.epoch, incarnation: sender.incarnation },
    "joined the run",
  );

  let isSilent = false;
  const heartbeats = (async () => {
    let silentSinceMs = performance.now();
    const patienceMs = reply.leaseTtlMs * SILENCE_SHARE;
    while (!ended.signal.aborted) {
      // Workers that once were held up together must not beat together ever after.
      await sleep(reply.heartbeatIntervalMs * (0.9 + 0.2 * Math.random()), ended.signal);
      if (ended.signal.aborted) return;
      try {
        const sentMs = performance.now();
        // It must not outlast the lease. After a pause of this process the coordinator still gets a moment to answer.
        const leftMs = Math.max(silentSinceMs + patienceMs - sentMs, reply.heartbeatIntervalMs);
        const limitMs = Math.min(CONTROL_DEADLINE_MS, leftMs);
        const answer = await heartbeat(clients, sender, options.holdings(), limitMs);
        silentSinceMs = performance.now();
        options.onHeartbeat(silentSinceMs - sentMs, answer.ready);
        if (answer.directive === "DRAIN") drained.abort();
        if (answer.directive === "REGISTER_AGAIN")
          ended.abort(new TroupeError("FENCED", "the coordinator counts on this registration no more"));
      } catch (error) {
        // What is left after a deadline is no time for another heartbeat.
        const leftMs = silentSinceMs + patienceMs - performance.now();
        if (leftMs > reply.heartbeatIntervalMs) continue;
        await sleep(Math.max(leftMs, 0), ended.signal);
        if (ended.signal.aborted) return;
        logger.warn({ error: String(error) }, "coordinator silent for a lease");
        isSilent = true;
        ended.abort(new TroupeError("UNREACHABLE", "the coordinator is silent"));
      }
    }
  })();

  try {
    await perform({
      sender,
      config,
      clients,
      coordinatorHost: splitAddress(address).host,
      signal: ended.signal,
      draining: drained.signal,
    });
  } catch (cause) {
    const error = fromServiceError(cause, "serving the coordinator");
    if (error.code !== "UNREACHABLE" && error.code !== "CANCELLED" && error.code !== "FENCED") throw error;
    logger.warn({ error: error.message }, "stream to the coordinator ended");
  } finally {
    ended.abort();
    options.signal.removeEventListener("abort", onStop);
    await heartbeats;
  }
  if (drained.signal.aborted) {
    await leave(clients, sender);
    return "over";
  }
  return isSilent ? "silent" : "broken";
}

function heartbeat(
  clients: Clients,
  sender: Sender,
  holdings: Holdings,
  limitMs: number,
): Promise<HeartbeatReply__Output> {
  const { position, policyVersion, tasks = [] } = holdings;
  return new Promise((resolve, reject) => {
    clients.membership.heartbeat(
      {
        sender,
        tasks: [...tasks],
        ...(position ? { appliedStep: position.step } : {}),
        ...(policyVersion === undefined ? {} : { policyVersion }),
      },
      { deadline: deadlineIn(limitMs) },
      (error, reply) => (error ? reject(error) : resolve(reply as HeartbeatReply__Output)),
    );
  });
}

/** Says goodbye; a coordinator that is already gone needs no goodbye. */
function leave(clients: Clients, sender: Sender): Promise<void> {
  return new Promise((resolve) => {
    clients.membership.leave({ sender, reason: "drained" }, { deadline: deadlineIn(2_000) }, () => resolve());
  });
}
