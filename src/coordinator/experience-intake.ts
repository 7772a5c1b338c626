/**
 * Experiences as they arrive: decoded, held until the core has decided on them, acknowledged in batches.
 *
 * What waits here is bounded. The core hands out work only as far as the buffer has room (tasks are the credit), a
 * worker keeps its unacknowledged bytes below a window, and one that does neither is no longer read from once
 * `MAX_UNDECIDED_BYTES` wait for the journal: its bytes stay in its own send queue.
 */
import type { Logger } from "../observability/logger.js";
import type { Metrics } from "../observability/metrics.js";
import type { ExperienceId, ScoredRollout } from "../rl/types.js";
import { decodeExperiences } from "../rpc/codec/experience-bytes.js";
import type { ExperienceAck } from "../rpc/generated/troupe/v1/ExperienceAck.js";
import type { AckEvaluation, AckExperiences, ReceivedExperience } from "./core/index.js";
import type { CoreHost } from "./core-host.js";
import type { ExperienceStore } from "./experience-store.js";

/** Experiences that have arrived and are not durable yet; about the work of a few journal writes. */
const MAX_UNDECIDED_BYTES = 64 << 20;

/** What came in one message and the core has not answered. */
interface Arrival {
  readonly rollouts: readonly ScoredRollout[];
  readonly bytes: number;
}

interface Evaluated {
  readonly rollouts: ScoredRollout[];
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
  /** By the list that the event carried to the core, and that its verdicts carry back. */
  private readonly undecided = new Map<readonly ReceivedExperience[], Arrival>();
  /** By task, by attempt. */
  private readonly evaluated = new Map<string, Map<number, Evaluated>>();
  private undecidedBytes = 0;
  private readonly waitingSources = new Set<Source>();
  /** By worker, by outcome. */
  private acks = new Map<string, Map<string, string[]>>();
  private readonly maxUndecidedBytes: number;

  /** Experiences that have arrived and that the core has not decided on, bytes. */
  get bytes(): number {
    return this.undecidedBytes;
  }

  constructor(private readonly options: IntakeOptions) {
    this.maxUndecidedBytes = options.maxUndecidedBytes ?? MAX_UNDECIDED_BYTES;
    options.host.on("AckExperiences", (effect) => this.settle(effect));
  }

  /**
   * @param messages serialised Experiences that came together, signed by `from`
   * @throws {TroupeError} PROTOCOL when one of them is none; then nothing of them is taken
   */
  receive(
    messages: readonly Uint8Array[],
    from: { readonly workerId: string; readonly incarnation: number },
  ): void {
    const { host, logger, metrics, isEvaluation } = this.options;
    let arrived;
    try {
      arrived = decodeExperiences(messages);
    } catch (error) {
      metrics.experiencesRejected.inc({ reason: "invalid" });
      throw error;
    }
    const experiences: ReceivedExperience[] = [];
    const rollouts: ScoredRollout[] = [];
    const payloads = new Map<ExperienceId, Uint8Array>();
    let bytes = 0;
    arrived.forEach(({ taskId, attempt, rollout, isFinite }, i) => {
      const { experienceId, policyVersion } = rollout;
      const { byteLength } = messages[i];
      if (!isFinite)
        logger.error(
          `experience ${experienceId}: a log-probability, a value or the score is NaN or infinite`,
        );
      if (isEvaluation(taskId)) {
        // Decided as a whole when its task is done.
        this.keepEvaluated(taskId, attempt, isFinite ? rollout : null, byteLength);
        return this.acknowledge(from.workerId, experienceId, "evaluation");
      }
      experiences.push({ taskId, attempt, experienceId, policyVersion, bytes: byteLength, isFinite });
      rollouts.push(rollout);
      // Of an id that comes twice the first is judged first.
      if (!payloads.has(experienceId)) payloads.set(experienceId, messages[i]);
      bytes += byteLength;
    });
    if (experiences.length === 0) return;
    this.undecidedBytes += bytes;
    this.undecided.set(experiences, { rollouts, bytes });
    host.dispatch({ type: "ExperiencesReceived", ...from, experiences }, payloads);
  }

  /** Reads no more from `source` until what waits has become durable, when too much does. */
  holdBack(source: Source): void {
    if (this.undecidedBytes < this.maxUndecidedBytes) return;
    source.pause();
    this.waitingSources.add(source);
  }

  /** The answers of an evaluation task; nothing of that attempt is kept. */
  takeEvaluation({ taskId, attempt }: AckEvaluation): ScoredRollout[] {
    const attempts = this.evaluated.get(taskId);
    const found = attempts?.get(attempt);
    if (found === undefined) return [];
    attempts!.delete(attempt);
    if (attempts!.size === 0) this.evaluated.delete(taskId);
    this.undecidedBytes -= found.bytes;
    return found.rollouts;
  }

  /** Nobody waits for this task any more. */
  forget(taskId: string): void {
    for (const { bytes } of this.evaluated.get(taskId)?.values() ?? []) this.undecidedBytes -= bytes;
    this.evaluated.delete(taskId);
    this.readOn();
  }

  private settle({ workerId, experiences, outcomes }: AckExperiences): void {
    const { store, metrics } = this.options;
    const arrival = this.undecided.get(experiences);
    let admitted = 0;
    outcomes.forEach((outcome, i) => {
      if (outcome === "admitted") {
        admitted += 1;
        if (arrival !== undefined) store.put(arrival.rollouts[i]);
      } else metrics.experiencesRejected.inc({ reason: outcome });
      this.acknowledge(workerId, experiences[i].experienceId, outcome);
    });
    if (admitted > 0) metrics.experiencesAdmitted.inc(admitted);
    if (arrival !== undefined) {
      this.undecided.delete(experiences);
      this.undecidedBytes -= arrival.bytes;
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
    let ofWorker = this.acks.get(workerId);
    if (ofWorker === undefined) this.acks.set(workerId, (ofWorker = new Map()));
    const ids = ofWorker.get(outcome);
    if (ids === undefined) ofWorker.set(outcome, [experienceId]);
    else ids.push(experienceId);
  }

  private flushAcks(): void {
    const { acks } = this;
    this.acks = new Map();
    for (const [workerId, ofWorker] of acks) {
      const list = [...ofWorker].map(([outcome, experienceIds]) => ({ experienceIds, outcome }));
      this.options.sendAcks(workerId, list);
    }
  }

  /** @param rollout null when it holds a number that is not finite */
  private keepEvaluated(taskId: string, attempt: number, rollout: ScoredRollout | null, bytes: number): void {
    let attempts = this.evaluated.get(taskId);
    if (attempts === undefined) this.evaluated.set(taskId, (attempts = new Map()));
    let kept = attempts.get(attempt);
    if (kept === undefined) attempts.set(attempt, (kept = { rollouts: [], bytes: 0 }));
    if (rollout !== null) kept.rollouts.push(rollout);
    kept.bytes += bytes;
    this.undecidedBytes += bytes;
  }
}
