/**
 * One coordinator directs, others stand by: taking the lead of a run whose journal is in NATS, and giving it up.
 *
 * The bucket TROUPE_<run> holds `leader` (the lease, with the address workers ask for), `run-id`, and `outcome` once the
 * run is over, so that a standby ends too instead of doing it again.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { jetstream, JetStreamApiError } from "@nats-io/jetstream";
import { Kvm, type KV } from "@nats-io/kv";
import type { NatsConnection } from "@nats-io/transport-node";
import type { Logger } from "../observability/logger.js";
import { sleep } from "../shared/abort.js";
import { configError, describeError, storageError, TroupeError } from "../shared/errors.js";
import { connectNats, isOvertaken, patiently, type NatsOptions } from "./journal/nats-connection.js";
import { matchReplicas } from "./journal/nats-replicas.js";
import type { Outcome } from "./run-end.js";
import { acquireLease, type Lease, type LeaseStore } from "./standby-lease.js";

const POLL_MS = 200;
/** One answer about the lease, or a server's sign of life; several fit into the time a waiter gives a holder. */
const ANSWER_MS = 1_000;
const OUTCOME_KEY = "outcome";
const RUN_ID_KEY = "run-id";

export interface LeadershipOptions {
  readonly nats: NatsOptions;
  readonly leaseTtlMs: number;
  /** Starts the name of a new run. */
  readonly name: string;
  /** What DIR/run-id says, when there is one. */
  readonly knownRunId: string | undefined;
  /** Wait for the one that leads, and go on with its run. */
  readonly standby: boolean;
  /** Go on with a run that another directory began. */
  readonly mayContinue: boolean;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

/**
 * @returns undefined when the run is done, or was stopped for all, while this one stood by
 * @throws {TroupeError} what it ended with, CANCELLED, RUN_DIR_IN_USE, CONFIG
 */
export async function takeLead(options: LeadershipOptions): Promise<Leadership | undefined> {
  const { nats, logger, signal } = options;
  const connection = await connectNats(nats, `troupe coordinator ${hostname()} ${process.pid}`);
  try {
    const store = await openBucket(connection, nats);
    const lease = await acquireLease(store, {
      holder: {
        id: randomUUID(),
        host: hostname(),
        pid: process.pid,
        ttlMs: options.leaseTtlMs,
        grpcAddress: null,
        httpAddress: null,
        released: false,
      },
      signal,
      pollMs: POLL_MS,
      mustBeFree: !options.standby,
      onWaiting: ({ host, pid, ttlMs }) =>
        logger.info({ leader: host, pid, ttl_ms: ttlMs }, "standing by for the coordinator that leads"),
      onTrouble: (error) =>
        logger.warn({ error: describeError(error) }, "the lease cannot be read; trying again"),
    });
    try {
      return await begin(connection, store.kv, lease, options);
    } catch (error) {
      await lease.release();
      throw error;
    }
  } catch (error) {
    await connection.close();
    throw error;
  }
}

async function begin(
  connection: NatsConnection,
  kv: KV,
  lease: Lease,
  options: LeadershipOptions,
): Promise<Leadership | undefined> {
  const outcome = await readOutcome(kv);
  const isOver = outcome !== undefined && options.standby && !(options.mayContinue && outcome.code !== null);
  if (isOver) {
    if (outcome.code !== null && outcome.code !== "CANCELLED")
      throw new TroupeError(
        outcome.code,
        `the run has ended: ${outcome.message}; once the cause is gone, go on with it by --standby --resume auto`,
      );
    options.logger.info(
      outcome.code === null ? "the run is done" : `the run was stopped: ${outcome.message}`,
    );
    await lease.release();
    await connection.close();
    return undefined;
  }
  if (outcome !== undefined) await patiently(() => kv.delete(OUTCOME_KEY), { attemptMs: ANSWER_MS });
  const runId = await agreeOnRunId(kv, options);
  return new Leadership(connection, kv, lease, runId);
}

export class Leadership {
  constructor(
    readonly connection: NatsConnection,
    private readonly kv: KV,
    private readonly lease: Lease,
    readonly runId: string,
  ) {}

  /** Aborts with FENCED when this process must stop acting for the run. */
  get lost(): AbortSignal {
    return this.lease.lost;
  }

  /** Tells workers that ask NATS where to connect. */
  announce(grpcAddress: string, httpAddress: string): void {
    this.lease.announce(grpcAddress, httpAddress);
  }

  /**
   * Leaves the lead.
   * @param outcome what those who stand by hear of the run's end; undefined when one of them goes on with it
   */
  async resign(outcome: Outcome | undefined): Promise<void> {
    if (outcome !== undefined && !this.lost.aborted)
      await patiently(() => this.kv.put(OUTCOME_KEY, JSON.stringify(outcome)), {
        attemptMs: ANSWER_MS,
        isGivenUp: () => this.lost.aborted,
      }).catch(() => undefined);
    await this.lease.release();
    await this.connection.close();
  }
}

/**
 * The bucket of a run, created when it is missing.
 * @throws {TroupeError} STORAGE; CONFIG when it cannot have the copies it should
 */
async function openBucket(connection: NatsConnection, { run, replicas }: NatsOptions): Promise<LeaseStore> {
  const name = `TROUPE_${run}`;
  const client = jetstream(connection, { timeout: ANSWER_MS, checkAPI: false });
  try {
    const kv = await patiently(
      async () => {
        const bucket = await new Kvm(client).create(name, { replicas, history: 1, allow_direct: false });
        const manager = await client.jetstreamManager();
        await matchReplicas(manager, await manager.streams.info(`KV_${name}`), replicas);
        return bucket;
      },
      { attemptMs: ANSWER_MS },
    );
    return storeOf(connection, kv, replicas);
  } catch (error) {
    if (error instanceof TroupeError) throw error;
    throw storageError(
      `NATS bucket ${name} with ${replicas} replicas cannot be opened: ${describeError(error)}`,
      { cause: error },
    );
  }
}

/** The bucket of a run; undefined when there is none. @throws {TroupeError} STORAGE */
export async function findBucket(
  connection: NatsConnection,
  { run }: NatsOptions,
): Promise<LeaseStore | undefined> {
  const name = `TROUPE_${run}`;
  const client = jetstream(connection, { timeout: ANSWER_MS, checkAPI: false });
  try {
    const manager = await client.jetstreamManager();
    const { config } = await patiently(() => manager.streams.info(`KV_${name}`), { attemptMs: ANSWER_MS });
    return storeOf(connection, await new Kvm(client).open(name), config.num_replicas);
  } catch (error) {
    if (error instanceof JetStreamApiError && error.status === 404) return undefined;
    throw storageError(`NATS bucket ${name} cannot be opened: ${describeError(error)}`, { cause: error });
  }
}

/** How the run ended; undefined while it can go on. */
export const readOutcome = (kv: KV): Promise<Outcome | undefined> => read<Outcome>(kv, OUTCOME_KEY);

const storeOf = (connection: NatsConnection, kv: KV, replicas: number): LeaseStore => ({
  kv,
  isReplicated: replicas > 1,
  isReachable: () =>
    Promise.race([
      connection.rtt().then(
        () => true,
        () => false,
      ),
      sleep(ANSWER_MS).then(() => false),
    ]),
});

/** One name for the life of the run, in NATS and in every run directory that takes part. */
async function agreeOnRunId(kv: KV, options: LeadershipOptions): Promise<string> {
  const { knownRunId, standby, mayContinue, nats } = options;
  let stored = await read<string>(kv, RUN_ID_KEY);
  if (stored === undefined) {
    stored = knownRunId ?? `${options.name}-${randomBytes(4).toString("hex")}`;
    const name = JSON.stringify(stored);
    const create = () =>
      kv.create(RUN_ID_KEY, name).catch((error: unknown) => {
        if (!isOvertaken(error)) throw error;
      });
    await patiently(create, { attemptMs: ANSWER_MS });
    return (await read<string>(kv, RUN_ID_KEY)) ?? stored;
  }
  if (knownRunId !== undefined && knownRunId !== stored) {
    throw configError(
      `this run directory holds ${knownRunId}, but NATS keeps ${stored} under the name ${nats.run}; use its directory, or give cluster.durable.run another name`,
    );
  }
  if (knownRunId === undefined && !standby && !mayContinue) {
    throw configError(
      `NATS already keeps ${stored} under the name ${nats.run}; go on with it by --resume auto or --standby, or give cluster.durable.run another name`,
    );
  }
  return stored;
}

async function read<T>(kv: KV, key: string): Promise<T | undefined> {
  const entry = await patiently(() => kv.get(key), { attemptMs: ANSWER_MS });
  return entry === null || entry.operation !== "PUT" ? undefined : entry.json<T>();
}
