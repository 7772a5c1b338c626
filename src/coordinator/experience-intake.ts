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
import { decodeExperiences, type TaskExperience } from "../rpc/codec/experience-bytes.js";
import type { ExperienceAck } from "../rpc/generated/troupe/v1/ExperienceAck.js";
import { describeError } from "../shared/errors.js";
import { checkAnswer, type AskedFor } from "./asked-for.js";
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
  readonly nonFinite: ExperienceId[];
  bytes: number;
}

interface From {
  readonly workerId: string;
  readonly incarnation: number;
}

/** One message of experiences. */
interface Message {
  readonly experiences: readonly Uint8Array[];
  readonly from: From;
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
  /**
   * What was asked for; "early" when the task is open and nobody here has come to it yet: after a restart workers offer
   * what they have made before the train loop asks for it again. undefined: nobody asked.
   */
  readonly asked: (taskId: string, experienceId: ExperienceId) => AskedFor | "early" | undefined;
  readonly sendAcks: (workerId: string, acks: ExperienceAck[]) => void;
  readonly maxUndecidedBytes?: number;
}

export class ExperienceIntake {
  /** By the list that the event carried to the core, and that its verdicts carry back. */
  private readonly undecided = new Map<readonly ReceivedExperience[], Arrival>();
  /** By task, by attempt. */
  private readonly evaluated = new Map<string, Map<number, Evaluated>>();
  /** Came before what they answer was asked for. */
  private early: Message[] = [];
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
   * @throws {TroupeError} PROTOCOL when one of them is none, or no answer to what was asked; then nothing of them is taken
   */
  receive(messages: readonly Uint8Array[], from: From): void {
    const { host, logger, isEvaluation } = this.options;
    const arrived = this.check(messages);
    if (arrived === "early") {
      this.early.push({ experiences: messages, from });
      this.undecidedBytes += bytesOf(messages);
      return;
    }
    const experiences: ReceivedExperience[] = [];
    const rollouts: ScoredRollout[] = [];
    const payloads = new Map<ExperienceId, Uint8Array>();
    let bytes = 0;
    arrived.forEach(({ taskId, attempt, rollout, isFinite }, i) => {
      const { experienceId, policyVersion } = rollout;
      const { byteLength } = messages[i];
      if (!isFinite) logger.error(`experience ${experienceId}: ${whatIsNotFinite(rollout)}`);
      if (isEvaluation(taskId)) {
        // Decided as a whole when its task is done.
        this.keepEvaluated(taskId, attempt, rollout, isFinite, byteLength);
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

  /** Decides on what came before it was asked for, as far as it is now. */
  takeEarly(): void {
    const { early } = this;
    this.early = [];
    for (const { experiences, from } of early) {
      this.undecidedBytes -= bytesOf(experiences);
      try {
        this.receive(experiences, from);
      } catch (error) {
        this.options.logger.error({ worker_id: from.workerId }, describeError(error));
      }
    }
    this.readOn();
  }

  /** Reads no more from `source` until what waits has become durable, when too much does. */
  holdBack(source: Source): void {
    if (this.undecidedBytes < this.maxUndecidedBytes) return;
    source.pause();
    this.waitingSources.add(source);
  }

  /** Whether the answer of that attempt is here, finite or not. */
  hasEvaluated(taskId: string, attempt: number, id: ExperienceId): boolean {
    const found = this.evaluated.get(taskId)?.get(attempt);
    if (found === undefined) return false;
    return found.nonFinite.includes(id) || found.rollouts.some(({ experienceId }) => experienceId === id);
  }

  /** The answers of an evaluation task, and whose are not finite; nothing of that attempt is kept. */
  takeEvaluation({ taskId, attempt }: AckEvaluation): Pick<Evaluated, "rollouts" | "nonFinite"> {
    const attempts = this.evaluated.get(taskId);
    const found = attempts?.get(attempt);
    if (found === undefined) return { rollouts: [], nonFinite: [] };
    attempts!.delete(attempt);
    if (attempts!.size === 0) this.evaluated.delete(taskId);
    this.undecidedBytes -= found.bytes;
    return found;
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

  /** What came, or "early" when something of it answers a task that is not known here yet. */
  private check(messages: readonly Uint8Array[]): readonly TaskExperience[] | "early" {
    try {
      const arrived = decodeExperiences(messages);
      for (const { taskId, rollout } of arrived) {
        const asked = this.options.asked(taskId, rollout.experienceId);
        if (asked === "early") return asked;
        if (asked !== undefined) checkAnswer(rollout, asked);
      }
      return arrived;
    } catch (error) {
      this.options.metrics.experiencesRejected.inc({ reason: "invalid" });
      throw error;
    }
  }

  private keepEvaluated(
    taskId: string,
    attempt: number,
    rollout: ScoredRollout,
    isFinite: boolean,
    bytes: number,
  ): void {
    let attempts = this.evaluated.get(taskId);
    if (attempts === undefined) this.evaluated.set(taskId, (attempts = new Map()));
    let kept = attempts.get(attempt);
    if (kept === undefined) attempts.set(attempt, (kept = { rollouts: [], nonFinite: [], bytes: 0 }));
    if (isFinite) kept.rollouts.push(rollout);
    else kept.nonFinite.push(rollout.experienceId);
    kept.bytes += bytes;
    this.undecidedBytes += bytes;
  }
}

const bytesOf = (messages: readonly Uint8Array[]): number =>
  messages.reduce((sum, { byteLength }) => sum + byteLength, 0);

/** The first number that is NaN or infinite. */
function whatIsNotFinite({ logprobs, refLogprobs, values, score }: ScoredRollout): string {
  for (const [name, column] of Object.entries({ logprobs, refLogprobs, values })) {
    const at = column.findIndex((value) => !Number.isFinite(value));
    if (at >= 0) return `${name}[${at}] is ${column[at]}; expected a finite number`;
  }
  return `score is ${score}; expected a finite number`;
}
