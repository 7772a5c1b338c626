/** The connection to the NATS servers of a run, and how their errors become ours. */
import { readFileSync, statSync } from "node:fs";
import { JetStreamApiError } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { sleep } from "../../shared/abort.js";
import { configError, describeError, storageError, TroupeError } from "../../shared/errors.js";

export interface NatsOptions {
  /** host:port or nats:// addresses; any of them leads to the whole cluster. */
  readonly servers: readonly string[];
  /** File with the servers' token, or with a user and a password; null connects without one. */
  readonly tokenFile: string | null;
  /** File with the certificate authority of the servers; null trusts the system's. */
  readonly caFile?: string | null;
  /** Copies of everything the servers keep: 1, 3 or 5. */
  readonly replicas: number;
  /** Names the streams, so that runs do not meet: letters, digits, `-` and `_`. */
  readonly run: string;
}

/** JetStream's code for "the stream does not end where the publisher believes". */
const WRONG_LAST_SEQUENCE = new Set([10071, 10164]);
/** Codes worth another try: the stream has no leader at this moment, or the request ran into a time-out. */
const PASSING_STATUS = new Set([408, 503, 504]);
/** Longer than a cluster takes to elect a stream's new leader: 4 to 9 s after the old one was lost. */
const DEFAULT_PATIENCE_MS = 15_000;
const RETRY_MS = 100;

/** Streams and buckets must not contain what separates subjects. */
export const streamName = (run: string, part: string): string => `TROUPE_${run}_${part}`;
export const subjectOf = (run: string, part: string): string => `troupe.${run}.${part}`;

/**
 * Connects, and keeps reconnecting for as long as the connection is open.
 * @param inboxPrefix starts the subjects where answers come in: all that a user with few rights may subscribe to
 * @throws {TroupeError} CONFIG for an unreadable token, AUTH when it is refused, UNREACHABLE when no server answers
 */
export async function connectNats(
  options: NatsOptions,
  name: string,
  inboxPrefix = "_INBOX",
): Promise<NatsConnection> {
  const { servers, tokenFile, caFile } = options;
  try {
    return await connect({
      servers: [...servers],
      name,
      inboxPrefix,
      timeout: 5_000,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 250,
      reconnectJitter: 100,
      // A server that vanished without closing its socket is noticed within two of these.
      pingInterval: 1_000,
      maxPingOut: 2,
      ...(tokenFile === null ? {} : readLogin(tokenFile)),
      ...(caFile ? { tls: { caFile } } : {}),
    });
  } catch (error) {
    if (error instanceof TroupeError) throw error;
    const text = describeError(error);
    if (/authorization|authentication/i.test(text)) {
      throw new TroupeError(
        "AUTH",
        `NATS at ${servers.join(", ")} refused the token, or user and password; see cluster.durable.tokenFile (workers: TROUPE_NATS_TOKEN_FILE)`,
        {
          cause: error,
        },
      );
    }
    throw new TroupeError(
      "UNREACHABLE",
      `no NATS server answers at ${servers.join(", ")}; is nats-server running there, with JetStream (-js)?`,
      { cause: error },
    );
  }
}

/** Somebody else wrote to the stream since. */
export const isOvertaken = (error: unknown): boolean =>
  error instanceof JetStreamApiError && WRONG_LAST_SEQUENCE.has(error.code);

/** Whether the same request may succeed in a moment: no leader elected, a lost connection, a time-out. */
export function isPassing(error: unknown): boolean {
  if (error instanceof TroupeError) return false;
  if (error instanceof JetStreamApiError) return PASSING_STATUS.has(error.status);
  return true;
}

export interface Patience {
  /** How long what passes is tried again before it counts as failed. */
  readonly patienceMs?: number;
  /** The most that one attempt may take, or may have taken by itself. */
  readonly attemptMs: number;
  /** Nobody waits for the answer any more. */
  readonly isGivenUp?: () => boolean;
}

/**
 * Repeats what may succeed in a moment. A process that was stopped for a minute has not waited a minute: only the time
 * an attempt may take counts, so that it asks once more and hears what happened meanwhile.
 * @throws the last attempt's error
 */
export async function patiently<T>(
  attempt: () => Promise<T>,
  { patienceMs = DEFAULT_PATIENCE_MS, attemptMs, isGivenUp = () => false }: Patience,
): Promise<T> {
  for (let waitedMs = 0; ; await sleep(RETRY_MS)) {
    const startedMs = performance.now();
    try {
      return await attempt();
    } catch (error) {
      waitedMs += Math.min(performance.now() - startedMs, attemptMs) + RETRY_MS;
      if (!isPassing(error) || isGivenUp() || waitedMs > patienceMs) throw error;
    }
  }
}

export function natsError(doing: string, error: unknown): TroupeError {
  if (error instanceof TroupeError) return error;
  return storageError(`${doing}: ${describeError(error)}`, { cause: error });
}

function readLogin(file: string): { token: string } | { user: string; pass: string } {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw configError(`cluster.durable.tokenFile ${file} cannot be read`, { cause });
  }
  if (process.platform !== "win32" && (statSync(file).mode & 0o007) !== 0)
    throw configError(`cluster.durable.tokenFile ${file} is readable by every user; run: chmod 600 ${file}`);
  const words = text.trim().split(/\s+/);
  const [user, pass] = words;
  if (user === "" || words.length > 2)
    throw configError(
      `cluster.durable.tokenFile ${file}: expected the servers' token, or USER PASSWORD, got ${user === "" ? 0 : words.length} words`,
    );
  return pass === undefined ? { token: user } : { user, pass };
}
