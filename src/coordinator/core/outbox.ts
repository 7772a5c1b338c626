import type { ErrorCode } from "../../shared/errors.js";
import type { ExperienceId } from "../../rl/types.js";
import { applyRecord } from "./apply-record.js";
import type { Effect, JournalEffect } from "./effects.js";
import type { DurableRecord } from "./records.js";
import type { CoordinatorState } from "./state.js";

export interface PayloadChanges {
  readonly putPayloads?: readonly ExperienceId[];
  readonly deletePayloads?: readonly ExperienceId[];
}

/** Collects the effects of one `reduce` call: records first, in order, then everything that tells somebody. */
export class Outbox {
  private readonly journals: JournalEffect[] = [];
  private readonly messages: Effect[] = [];
  /** The newest record of admissions. */
  private admitted: {
    readonly type: "ExperiencesAdmitted";
    readonly policyVersion: number;
    readonly experienceIds: ExperienceId[];
    readonly bytes: number[];
  } | null = null;

  constructor(private readonly state: CoordinatorState) {}

  /** Makes `record` true: folds it into the durable state and asks for it to be journalled. */
  record(record: DurableRecord, payloads: PayloadChanges = {}): void {
    applyRecord(this.state.durable, record);
    this.journals.push({ type: "journal", record, ...payloads });
  }

  /** Admits one experience. Those admitted one after the other share a record. */
  admit(experienceId: ExperienceId, policyVersion: number, bytes: number): void {
    const one = {
      type: "ExperiencesAdmitted",
      policyVersion,
      experienceIds: [experienceId],
      bytes: [bytes],
    } as const;
    applyRecord(this.state.durable, one);
    const { admitted } = this;
    if (
      admitted !== null &&
      admitted.policyVersion === policyVersion &&
      this.journals.at(-1)?.record === admitted
    ) {
      admitted.experienceIds.push(experienceId);
      admitted.bytes.push(bytes);
      return;
    }
    this.admitted = { ...one, experienceIds: [experienceId], bytes: [bytes] };
    this.journals.push({
      type: "journal",
      record: this.admitted,
      putPayloads: this.admitted.experienceIds,
    });
  }

  send(effect: Exclude<Effect, JournalEffect>): void {
    this.messages.push(effect);
  }

  /** Ends the run; only the first reason counts. */
  stop(code: ErrorCode, diagnosis: string): void {
    if (this.state.volatile.stopped !== null) return;
    this.state.volatile.stopped = { code, diagnosis };
    this.send({ type: "StopRun", code, diagnosis });
  }

  effects(): Effect[] {
    return this.journals.length === 0 ? this.messages : [...this.journals, ...this.messages];
  }
}
