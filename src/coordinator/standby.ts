/**
 * One coordinator directs, others stand by: taking the lead of a run whose journal is in NATS, and giving it up.
 *
 * The bucket TROUPE_<run> holds `leader` (the lease, with the address workers ask for), `run-id`, and `outcome` once the
 * run is over, so that a standby ends too instead of doing it again.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { jetstream } from "@nats-io/jetstream";
import { Kvm, type KV } from "@nats-io/kv";
import type { NatsConnection } from "@nats-io/transport-node";
import type { Logger } from "../observability/logger.js";
import {
  configError,
  describeError,
  errorCodeOf,
  EXIT_CODES,
  FATAL_EXIT_CODES,
  storageError,
  TroupeError,
  type ErrorCode,
} from "../shared/errors.js";
import { connectNats, isOvertaken, type NatsOptions } from "./journal/nats-connection.js";
import { acquireLease, type Lease } from "./standby-lease.js";

const POLL_MS = 200;
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

interface Outcome {
  readonly code: ErrorCode | null;
  readonly message: string;
}

/** @returns undefined when the run ended well while this one stood by @throws {TroupeError} what it ended with, CANCELLED, RUN_DIR_IN_USE, CONFIG */
export async function takeLead(options: LeadershipOptions): Promise<Leadership | undefined> {
  const { nats, logger, signal } = options;
  const connection = await connectNats(nats, `troupe coordinator ${hostname()} ${process.pid}`);
  try {
    const kv = await createBucket(connection, nats);
    const lease = await acquireLease(kv, {
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
      return await begin(connection, kv, lease, options);
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
  const outcome = await read<Outcome>(kv, OUTCOME_KEY);
  if (outcome !== undefined && options.standby) {
    if (outcome.code !== null) throw new TroupeError(outcome.code, `the run has ended: ${outcome.message}`);
    options.logger.info("the run is done");
    await lease.release();
    await connection.close();
    return undefined;
  }
  if (outcome !== undefined) await kv.delete(OUTCOME_KEY);
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
   * Leaves the lead. A run that is done, or failed in a way that would repeat, is over for those who stand by, too;
   * after anything else the next one takes over.
   * @param reason what ended the run; undefined when it is done
   */
  async resign(reason: unknown): Promise<void> {
    const code = reason === undefined ? null : errorCodeOf(reason);
    const isOver = code === null || FATAL_EXIT_CODES.has(EXIT_CODES[code]);
    if (isOver && !this.lost.aborted) {
      const outcome: Outcome = { code, message: code === null ? "done" : describeError(reason) };
      await this.kv.put(OUTCOME_KEY, JSON.stringify(outcome)).catch(() => undefined);
    }
    await this.lease.release();
    await this.connection.close();
  }
}

/** The bucket of a run, created when it is missing. @throws {TroupeError} STORAGE */
async function createBucket(connection: NatsConnection, { run, replicas }: NatsOptions): Promise<KV> {
  try {
    return await new Kvm(jetstream(connection)).create(`TROUPE_${run}`, {
      replicas,
      history: 1,
      allow_direct: false,
    });
  } catch (error) {
    throw storageError(
      `NATS bucket TROUPE_${run} with ${replicas} replicas cannot be opened: ${describeError(error)}`,
      {
        cause: error,
      },
    );
  }
}

/** One name for the life of the run, in NATS and in every run directory that takes part. */
async function agreeOnRunId(kv: KV, options: LeadershipOptions): Promise<string> {
  const { knownRunId, standby, mayContinue, nats } = options;
  let stored = await read<string>(kv, RUN_ID_KEY);
  if (stored === undefined) {
    stored = knownRunId ?? `${options.name}-${randomBytes(4).toString("hex")}`;
    await kv.create(RUN_ID_KEY, JSON.stringify(stored)).catch((error: unknown) => {
      if (!isOvertaken(error)) throw error;
    });
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
  const entry = await kv.get(key);
  return entry === null || entry.operation !== "PUT" ? undefined : entry.json<T>();
}
