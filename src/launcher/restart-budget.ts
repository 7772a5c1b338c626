/**
 * When a process that died may start again: exponential backoff with jitter per process, and a sliding budget per
 * role, so that a crash loop ends the run instead of running forever. Pure: the clock and the RNG are given.
 */
export interface RestartPolicy {
  /** Restarts of one role within `windowMs` before the run fails. @default 10 */
  readonly maxRestarts: number;
  /** @default 600_000 */
  readonly windowMs: number;
  /** Delay before the first restart; doubles with each failure in a row. @default 1_000 */
  readonly baseDelayMs: number;
  /** @default 30_000 */
  readonly maxDelayMs: number;
  /** A process that leaves in peace is not started sooner: the run may be about to end. @default 2_000 */
  readonly leaveDelayMs: number;
}

export const DEFAULT_RESTART_POLICY: RestartPolicy = {
  maxRestarts: 10,
  windowMs: 600_000,
  baseDelayMs: 1_000,
  maxDelayMs: 30_000,
  leaveDelayMs: 2_000,
};

/** A process that lived this long has recovered: its next failure counts as the first. */
const RECOVERED_AFTER_MS = 60_000;
/** Share of the delay added at random, so that workers felled together do not return together. */
const JITTER = 0.25;

export type RestartDecision =
  | { readonly type: "restart"; readonly delayMs: number; readonly used: number }
  | { readonly type: "spent"; readonly used: number };

export class RestartBudget {
  readonly #restartsAtMs = new Map<string, number[]>();
  readonly #endingsInARow = new Map<string, number>();

  constructor(
    readonly policy: RestartPolicy = DEFAULT_RESTART_POLICY,
    readonly random: () => number = Math.random,
  ) {}

  /**
   * Asks for one restart and books it.
   * @param role     whose budget it is, e.g. "learner"
   * @param process  whose backoff it is, e.g. "learner-1"
   * @param nowMs    monotonic clock
   * @param uptimeMs how long the process had lived
   */
  decide(role: string, process: string, nowMs: number, uptimeMs: number): RestartDecision {
    const { maxRestarts, windowMs } = this.policy;
    const recent = (this.#restartsAtMs.get(role) ?? []).filter((atMs) => nowMs - atMs < windowMs);
    if (recent.length >= maxRestarts) return { type: "spent", used: recent.length };
    recent.push(nowMs);
    this.#restartsAtMs.set(role, recent);
    return { type: "restart", delayMs: this.backoffMs(process, uptimeMs), used: recent.length };
  }

  /** Delay before the next start of a process that ended after `uptimeMs`; grows with every call in a row. */
  backoffMs(process: string, uptimeMs: number): number {
    const { baseDelayMs, maxDelayMs } = this.policy;
    const endings = uptimeMs >= RECOVERED_AFTER_MS ? 1 : (this.#endingsInARow.get(process) ?? 0) + 1;
    this.#endingsInARow.set(process, endings);
    return Math.round(Math.min(maxDelayMs, baseDelayMs * 2 ** (endings - 1)) * (1 + JITTER * this.random()));
  }
}
