/** Deletes what NATS keeps of a run: its streams and the bucket of its lease. */
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { JetStreamApiError, jetstreamManager } from "@nats-io/jetstream";
import { configError } from "../shared/errors.js";
import { connectNats, natsError, streamName, type NatsOptions } from "./journal/nats-connection.js";
import { acquireLease } from "./standby-lease.js";
import { findBucket, readOutcome } from "./standby.js";

const PARTS = ["LOG", "PAYLOADS", "FILES", "BLOBS"];
const LEASE_TTL_MS = 5_000;
const POLL_MS = 200;
const REQUEST_MS = 10_000;

export interface ForgetOptions {
  readonly nats: NatsOptions;
  /** Also a run that could go on. */
  readonly force: boolean;
  readonly signal: AbortSignal;
}

/**
 * Holds the run's lease meanwhile, so that no coordinator begins with a half of it.
 * @returns bytes that are free now
 * @throws {TroupeError} CONFIG when nothing is kept, or the run is not done; RUN_DIR_IN_USE when a coordinator leads it
 */
export async function forgetRun({ nats, force, signal }: ForgetOptions): Promise<number> {
  const connection = await connectNats(nats, `troupe forget ${hostname()} ${process.pid}`);
  try {
    const store = await findBucket(connection, nats);
    if (store === undefined) throw configError(`NATS keeps nothing under the name ${nats.run}`);
    const lease = await acquireLease(store, {
      holder: {
        ...{ id: randomUUID(), host: hostname(), pid: process.pid, ttlMs: LEASE_TTL_MS },
        ...{ grpcAddress: null, httpAddress: null, released: false },
      },
      ...{ signal, pollMs: POLL_MS, mustBeFree: true },
    });
    try {
      const outcome = await readOutcome(store.kv);
      if (outcome?.code !== null && !force)
        throw configError(
          `the run ${nats.run} is not done (${outcome?.message ?? "it can go on"}); pass --force to delete it all the same`,
        );
      const { streams } = await jetstreamManager(connection, { checkAPI: false, timeout: REQUEST_MS });
      let bytes = 0;
      // The bucket last: cut short, the command can be given again.
      for (const name of [...PARTS.map((part) => streamName(nats.run, part)), `KV_TROUPE_${nats.run}`]) {
        try {
          bytes += (await streams.info(name)).state.bytes;
          await streams.delete(name);
        } catch (error) {
          if (!(error instanceof JetStreamApiError && error.status === 404))
            throw natsError(`NATS stream ${name} cannot be deleted`, error);
        }
      }
      return bytes;
    } finally {
      await lease.release();
    }
  } finally {
    await connection.close();
  }
}
