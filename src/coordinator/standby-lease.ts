/**
 * Who directs a run: one key that its holder renews and others watch. No two machines compare clocks:
 *
 * - the holder counts its time from when it *sent* the last renewal that was confirmed, and stops at ttl − margin;
 * - a waiter counts the whole ttl from when it *saw* the key change last, and then replaces exactly what it saw.
 *
 * A renewal is seen after it was sent, so the holder has stopped before anybody else begins. A holder that was paused
 * past its time may still believe for a moment; the journal refuses it (see journal/nats-log.ts).
 *
 * A bucket with copies cannot be read or written by anybody while its servers elect a leader, which takes longer than a
 * short ttl. A holder to whom a server answers meanwhile waits for the outcome instead of stopping; a waiter gives it
 * time to renew once the bucket is back. Should both believe to be right then, the journal decides here, too.
 */
import { JetStreamApiError } from "@nats-io/jetstream";
import type { KV, KvEntry, Kvm } from "@nats-io/kv";
import { sleep } from "../shared/abort.js";
import { describeError, TroupeError } from "../shared/errors.js";
import { isOvertaken } from "./journal/nats-connection.js";

const KEY = "leader";
/** Share of the ttl by which a holder stops early. */
const MARGIN = 0.2;
const RENEWALS_PER_TTL = 5;
/** After a renewal that failed. */
const RETRIES_PER_RENEWAL = 5;
/** Servers elect a leader within 9 s of its loss; the rest is for the renewals before and after. */
const ELECTION_MS = 12_000;
/** Share of the ttl for which the bucket must have been readable before its key counts as abandoned. */
const READABLE = 0.4;

/** Value of the key. */
export interface LeaseHolder {
  /** Unique per process start. */
  readonly id: string;
  /** For people: who it is. */
  readonly host: string;
  readonly pid: number;
  readonly ttlMs: number;
  /** Where workers reach it; null while it does not listen yet. */
  readonly grpcAddress: string | null;
  readonly httpAddress: string | null;
  /** True once it gave the lease up: whoever waits may take it at once. */
  readonly released: boolean;
}

/** Where the key is. */
export interface LeaseStore {
  readonly kv: KV;
  /** There are copies: when the server that leads them is lost, another is elected. */
  readonly isReplicated: boolean;
  /** Whether any server answers, even if the bucket does not. */
  isReachable(): Promise<boolean>;
}

export interface LeaseOptions {
  readonly holder: LeaseHolder;
  readonly signal: AbortSignal;
  /** How often a waiter looks. */
  readonly pollMs: number;
  /** Fail when another holder is alive, instead of waiting for it to go. */
  readonly mustBeFree: boolean;
  readonly onWaiting?: (holder: LeaseHolder) => void;
  readonly onTrouble?: (error: unknown) => void;
}

/** Who holds the lease in the bucket; undefined when nobody ever did, or there is no such bucket. */
export async function readHolder(kvm: Kvm, bucket: string): Promise<LeaseHolder | undefined> {
  try {
    return holderOf(await (await kvm.open(bucket)).get(KEY));
  } catch (error) {
    if (error instanceof JetStreamApiError && error.status === 404) return undefined;
    throw error;
  }
}

/**
 * Waits until the lease is free or has run out, and takes it.
 * @throws {TroupeError} CANCELLED when `signal` aborts; RUN_DIR_IN_USE when `mustBeFree` and somebody renews it
 */
export async function acquireLease(store: LeaseStore, options: LeaseOptions): Promise<Lease> {
  const { kv } = store;
  const { holder, signal, pollMs, mustBeFree } = options;
  let readableSinceMs: number | undefined;
  let seen: { readonly revision: number; readonly sinceMs: number } | undefined;
  let told: string | undefined;
  while (!signal.aborted) {
    try {
      const entry = await kv.get(KEY);
      const current = holderOf(entry);
      const nowMs = performance.now();
      readableSinceMs ??= nowMs;
      const isFree = current === undefined || current.released;
      if (!isFree && entry !== null && entry.revision !== seen?.revision) {
        if (seen !== undefined && mustBeFree) throw inUse(current);
        seen = { revision: entry.revision, sinceMs: nowMs };
        if (told !== current.id) options.onWaiting?.(current);
        told = current.id;
      }
      const hasRunOut =
        !isFree &&
        seen !== undefined &&
        nowMs - seen.sinceMs >= current.ttlMs &&
        nowMs - readableSinceMs >= current.ttlMs * READABLE;
      if (isFree || hasRunOut) {
        const revision = await take(kv, entry, holder);
        if (revision !== undefined) return new Lease(store, holder, revision, nowMs);
        continue; // somebody else was faster, or it was renewed: look again
      }
    } catch (error) {
      if (error instanceof TroupeError) throw error;
      readableSinceMs = undefined;
      options.onTrouble?.(error);
    }
    await sleep(pollMs, signal);
  }
  throw new TroupeError("CANCELLED", "stopped while waiting to direct the run", { cause: signal.reason });
}

export class Lease {
  private readonly losing = new AbortController();
  private readonly renewals: Promise<void>;
  private validFromMs: number;
  private readonly stopping = new AbortController();
  private wake = new AbortController();
  private expiry: NodeJS.Timeout | undefined;

  /** @param sentMs when the request that took the lease was sent */
  constructor(
    private readonly store: LeaseStore,
    private holder: LeaseHolder,
    private revision: number,
    sentMs: number,
  ) {
    this.validFromMs = sentMs;
    this.armExpiry();
    this.renewals = this.renew();
  }

  /** Aborts with FENCED when this process may no longer act for the run. */
  get lost(): AbortSignal {
    return this.losing.signal;
  }

  /** Puts the addresses into the key with the next renewal, which it brings forward. */
  announce(grpcAddress: string, httpAddress: string): void {
    this.holder = { ...this.holder, grpcAddress, httpAddress };
    this.wake.abort();
  }

  /** Stops renewing; when the lease is still held, lets the next one have it at once. */
  async release(): Promise<void> {
    this.stopping.abort();
    clearTimeout(this.expiry);
    await this.renewals;
    if (this.lost.aborted) return;
    // Without an answer the others wait for the ttl, as they would after a crash.
    await this.write({ ...this.holder, released: true }).catch(() => undefined);
  }

  private get ttlMs(): number {
    return this.holder.ttlMs;
  }

  private get intervalMs(): number {
    return this.ttlMs / RENEWALS_PER_TTL;
  }

  private async renew(): Promise<void> {
    let delayMs = this.intervalMs;
    while (!this.stopping.signal.aborted && !this.lost.aborted) {
      await sleep(delayMs, AbortSignal.any([this.stopping.signal, this.wake.signal]));
      if (this.stopping.signal.aborted || this.lost.aborted) return;
      this.wake = new AbortController();
      const sentMs = performance.now();
      try {
        await this.write(this.holder);
        this.validFromMs = sentMs;
        this.armExpiry();
        delayMs = this.intervalMs;
      } catch (error) {
        delayMs = this.intervalMs / RETRIES_PER_RENEWAL;
        if (isOvertaken(error)) await this.reconcile(error);
        else if (this.store.isReplicated && (await this.store.isReachable())) this.armExpiry(ELECTION_MS);
      }
    }
  }

  private async write(value: LeaseHolder): Promise<void> {
    const { kv } = this.store;
    this.revision = await kv.update(KEY, JSON.stringify(value), this.revision, Math.ceil(this.intervalMs));
  }

  /** The key changed: by an own renewal whose answer was lost, or by whoever holds it now. */
  private async reconcile(cause: unknown): Promise<void> {
    const entry = await this.store.kv.get(KEY).catch(() => null);
    const current = holderOf(entry);
    if (entry !== null && current?.id === this.holder.id) this.revision = entry.revision;
    else if (current !== undefined)
      this.lose(`${current.host} (pid ${current.pid}) directs the run now`, cause);
  }

  /** @param electionMs what the servers may take to elect, when that is why there is no renewal */
  private armExpiry(electionMs = 0): void {
    clearTimeout(this.expiry);
    if (this.stopping.signal.aborted || this.lost.aborted) return;
    const endMs = this.validFromMs + Math.max(this.ttlMs * (1 - MARGIN), electionMs);
    this.expiry = setTimeout(
      () => {
        this.lose(
          `the lease was not renewed for ${Math.round(performance.now() - this.validFromMs)} ms of its ${this.ttlMs}`,
        );
      },
      Math.max(0, endMs - performance.now()),
    );
  }

  private lose(why: string, cause?: unknown): void {
    clearTimeout(this.expiry);
    if (this.lost.aborted || this.stopping.signal.aborted) return;
    this.losing.abort(new TroupeError("FENCED", `this coordinator was replaced: ${why}`, { cause }));
  }
}

async function take(kv: KV, entry: KvEntry | null, holder: LeaseHolder): Promise<number | undefined> {
  const value = JSON.stringify(holder);
  try {
    return entry === null ? await kv.create(KEY, value) : await kv.update(KEY, value, entry.revision);
  } catch (error) {
    if (isOvertaken(error)) return undefined;
    throw error;
  }
}

function holderOf(entry: KvEntry | null): LeaseHolder | undefined {
  if (entry === null || entry.operation !== "PUT") return undefined;
  try {
    return entry.json<LeaseHolder>();
  } catch (error) {
    throw new TroupeError(
      "STORAGE",
      `NATS key ${entry.bucket}/${entry.key} is damaged: ${describeError(error)}`,
    );
  }
}

const inUse = ({ host, pid }: LeaseHolder): TroupeError =>
  new TroupeError(
    "RUN_DIR_IN_USE",
    `a coordinator on ${host} (pid ${pid}) directs this run; stop it, or start this one with --standby`,
  );
