/**
 * Experiences as they arrive: decoded, held until the core has decided on them, acknowledged in batches.
 *
 * What waits here is bounded. The core hands out work only as far as the buffer has room (tasks are the credit), a
 * worker keeps its unacknowledged bytes below a window, and one that does neither is no longer read from once
 * `MAX_UNDECIDED_BYTES` wait for the journal: its bytes stay in its own send queue.
 */
import type { Logger } from "../observability/logger.js";
import type { Metrics } from "../observability/metrics.js";
import type { ScoredRollout } from "../rl/types.js";
import { decodeExperience } from "../rpc/codec/experience-bytes.js";
import type { ExperienceAck } from "../rpc/generated/troupe/v1/ExperienceAck.js";
import type { AckEvaluation, AckExperience } from "./core/index.js";
import type { CoreHost } from "./core-host.js";
import type { ExperienceStore } from "./experience-store.js";

/** Experiences that have arrived and are not durable yet; about the work of a few journal writes. */
export const MAX_UNDECIDED_BYTES = 64 << 20;

interface Undecided {
  /** Null when it holds a number that is not finite. */
  readonly rollout: ScoredRollout | null;
  /** Arrivals the core has not answered, and their bytes: a worker may send the same one twice. */
  arrivals: number;
  bytes: number;
}

/** A stream that can be told to wait. */
interface Source {
  pause(): unknown;
  resume(): unknown;
  readonly destroyed: boolean;
}

export interface IntakeOptions {
  readonly host: CoreHost;
  readonly store: ExperienceStore;
  readonly metrics: Metrics<"coordinator">;
  readonly logger: Logger;
  readonly isEvaluation: (taskId: string) => boolean;
  readonly sendAcks: (workerId: string, acks: ExperienceAck[]) => void;
  readonly maxUndecidedBytes?: number;
}

export class ExperienceIntake {
  /** By task, by attempt, by experience id. */
  private readonly undecided = new Map<string, Map<number, Map<string, Undecided>>>();
  private undecidedBytes = 0;
  private readonly waitingSources = new Set<Source>();
  private acks = new Map<string, ExperienceAck[]>();
  private readonly maxUndecidedBytes: number;

  /** Experiences that have arrived and that the core has not decided on, bytes. */
  get bytes(): number {
    return this.undecidedBytes;
  }

  constructor(private readonly options: IntakeOptions) {
    this.maxUndecidedBytes = options.maxUndecidedBytes ?? MAX_UNDECIDED_BYTES;
    options.host.on("AckExperience", (effect) => this.settle(effect));
  }

  /**
   * @param message one serialised Experience, signed by `from`
   * @throws {TroupeError} PROTOCOL when it is none
   */
  receive(message: Uint8Array, from: { readonly workerId: string; readonly incarnation: number }): void {
    const { host, logger, metrics } = this.options;
    let arrived;
    try {
      arrived = decodeExperience(message);
    } catch (error) {
      metrics.experiencesRejected.inc({ reason: "invalid" });
      throw error;
    }
    const { taskId, attempt, rollout, isFinite } = arrived;
    const { experienceId, policyVersion } = rollout;
    const bytes = message.byteLength;
    if (!isFinite)
      logger.error(`experience ${experienceId}: a log-probability, a value or the score is NaN or infinite`);
    this.note(taskId, attempt, experienceId, isFinite ? rollout : null, bytes);
    // An evaluation is decided as a whole when its task is done.
    if (this.options.isEvaluation(taskId)) return this.acknowledge(from.workerId, experienceId, "evaluation");
    host.dispatch(
      { type: "ExperienceReceived", ...from, taskId, attempt, experienceId, policyVersion, bytes, isFinite },
      message,
    );
  }

  /** Reads no more from `source` until what waits has become durable, when too much does. */
  holdBack(source: Source): void {
    if (this.undecidedBytes < this.maxUndecidedBytes) return;
    source.pause();
    this.waitingSources.add(source);
  }

  /** The answers of an evaluation task; nothing of that attempt is kept. */
  takeEvaluation({ taskId, attempt }: AckEvaluation): ScoredRollout[] {
    const found = [...(this.undecided.get(taskId)?.get(attempt)?.values() ?? [])];
    for (const { bytes } of found) this.undecidedBytes -= bytes;
    this.removeAttempt(taskId, attempt);
    return found.flatMap(({ rollout }) => (rollout === null ? [] : [rollout]));
  }

  /** Nobody waits for this task any more. */
  forget(taskId: string): void {
    for (const attempt of this.undecided.get(taskId)?.values() ?? [])
      for (const { bytes } of attempt.values()) this.undecidedBytes -= bytes;
    this.undecided.delete(taskId);
    this.readOn();
  }

  private settle({ workerId, taskId, attempt, experienceId, outcome }: AckExperience): void {
    const { store, metrics } = this.options;
    const ofAttempt = this.undecided.get(taskId)?.get(attempt);
    const found = ofAttempt?.get(experienceId);
    if (outcome === "admitted") {
      if (found?.rollout) store.put(found.rollout);
      metrics.experiencesAdmitted.inc();
    } else metrics.experiencesRejected.inc({ reason: outcome });
    this.acknowledge(workerId, experienceId, outcome);
    if (found !== undefined && --found.arrivals === 0) {
      this.undecidedBytes -= found.bytes;
      ofAttempt!.delete(experienceId);
      if (ofAttempt!.size === 0) this.removeAttempt(taskId, attempt);
    }
    this.readOn();
  }

  /** Half of the limit must be free, or every second message would stop a stream again. */
  private readOn(): void {
    if (this.waitingSources.size === 0 || this.undecidedBytes > this.maxUndecidedBytes / 2) return;
    const sources = [...this.waitingSources];
    this.waitingSources.clear();
    for (const source of sources) if (!source.destroyed) source.resume();
  }

  /** All that the core decides in one go leaves in one message per worker. */
  private acknowledge(workerId: string, experienceId: string, outcome: string): void {
    if (this.acks.size === 0) queueMicrotask(() => this.flushAcks());
    const waiting = this.acks.get(workerId);
    if (waiting === undefined) this.acks.set(workerId, [{ experienceId, outcome }]);
    else waiting.push({ experienceId, outcome });
  }

  private flushAcks(): void {
    const { acks } = this;
    this.acks = new Map();
    for (const [workerId, list] of acks) this.options.sendAcks(workerId, list);
  }

  private note(
    taskId: string,
    attempt: number,
    experienceId: string,
    rollout: ScoredRollout | null,
    bytes: number,
  ): void {
    this.undecidedBytes += bytes;
    let attempts = this.undecided.get(taskId);
    if (attempts === undefined) this.undecided.set(taskId, (attempts = new Map()));
    let ofAttempt = attempts.get(attempt);
    if (ofAttempt === undefined) attempts.set(attempt, (ofAttempt = new Map()));
    const before = ofAttempt.get(experienceId);
    if (before === undefined) ofAttempt.set(experienceId, { rollout, arrivals: 1, bytes });
    else {
      before.arrivals += 1;
      before.bytes += bytes;
    }
  }

  private removeAttempt(taskId: string, attempt: number): void {
    const attempts = this.undecided.get(taskId);
    attempts?.delete(attempt);
    if (attempts?.size === 0) this.undecided.delete(taskId);
  }
}
