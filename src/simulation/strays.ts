/**
 * I6 and I12 of every message: what comes from a process that is over, or speaks of something that is over, must change
 * nothing. Which those are follows from what the coordinator told and was told, not from its state.
 */
import type { CoordinatorEvent, CoordinatorState, Effect } from "../coordinator/core/index.js";

type Rule = "I6" | "I12";

/** What such a message may be answered with. */
const ANSWERS: ReadonlySet<Effect["type"]> = new Set(["FenceWorker", "AckExperiences", "AckEvaluation"]);

export class Strays {
  /** Accepted and not removed since: incarnation -> workerId. */
  private readonly live = new Map<number, string>();
  private active: { generation: number; step: number; incarnations: readonly number[] } | null = null;
  private readonly heals = new Map<number, number>();
  /** Attempts that are out. */
  private readonly attempts = new Set<string>();

  isLive(incarnation: number): boolean {
    return this.live.has(incarnation);
  }

  /** Which rule says that the event must change nothing; null when it may. */
  ruleOf(event: CoordinatorEvent): Rule | null {
    if ("incarnation" in event && this.live.get(event.incarnation) !== event.workerId) return "I6";
    return this.isOver(event) ? "I12" : null;
  }

  private isOver(event: CoordinatorEvent): boolean {
    const { active } = this;
    switch (event.type) {
      case "StepVote":
      case "StepComputed":
        return !this.isCurrent(event) || !active!.incarnations.includes(event.incarnation);
      case "ReduceFailed":
      case "RoundTrained":
        return !this.isCurrent(event);
      case "LearnerBehind":
        return active?.generation !== event.generation || !active.incarnations.includes(event.incarnation);
      case "LearnerHealed":
      case "LearnerHealFailed":
      case "StateLent":
        return this.heals.get(event.incarnation) !== event.healId;
      case "TaskFinished":
      case "TaskFailed":
        return !this.attempts.has(attemptKey(event));
      default:
        return false;
    }
  }

  private isCurrent({ generation, step }: { readonly generation: number; readonly step: number }): boolean {
    return this.active?.generation === generation && this.active.step === step;
  }

  /** Takes note of an event and of what was decided on it. */
  note(event: CoordinatorEvent, effects: readonly Effect[]): void {
    if (event.type === "WorkerDisconnected" || event.type === "WorkerLeft")
      this.live.delete(event.incarnation);
    if (event.type === "LearnerHealed" || event.type === "LearnerHealFailed")
      if (this.heals.get(event.incarnation) === event.healId) this.heals.delete(event.incarnation);
    if (event.type === "TaskFinished" || event.type === "TaskFailed") this.attempts.delete(attemptKey(event));
    for (const effect of effects) this.noteEffect(effect);
  }

  private noteEffect(effect: Effect): void {
    switch (effect.type) {
      case "AcceptWorker":
        for (const [incarnation, workerId] of this.live)
          if (workerId === effect.workerId && incarnation !== effect.incarnation)
            this.live.delete(incarnation);
        this.live.set(effect.incarnation, effect.workerId);
        return;
      case "FenceWorker":
      case "ReleaseWorker":
        this.live.delete(effect.incarnation);
        return;
      case "StartStep":
      case "AverageRound": {
        const { generation, step, members } = effect;
        this.active = { generation, step, incarnations: members.map(({ incarnation }) => incarnation) };
        return;
      }
      case "CommitStep":
      case "SkipStep":
      case "AbortStep":
        if (this.active?.generation === effect.generation) this.active = null;
        return;
      case "HealLearner":
        this.heals.set(effect.incarnation, effect.healId);
        return;
      case "AssignTask":
        this.attempts.add(attemptKey(effect));
        return;
      case "CancelTask":
        this.attempts.delete(attemptKey(effect));
        return;
      default:
    }
  }
}

interface OfAttempt {
  readonly taskId: string;
  readonly attempt: number;
  readonly incarnation: number;
}

const attemptKey = ({ taskId, attempt, incarnation }: OfAttempt): string =>
  `${taskId} ${attempt} ${incarnation}`;

/** What the message did that it must not: its first forbidden effect, or the first part of the state that is another. */
export function changeOf(
  before: Readonly<Record<string, string>>,
  after: Readonly<Record<string, string>>,
  effects: readonly Effect[],
): string | null {
  const effect = effects.find(({ type }) => !ANSWERS.has(type));
  if (effect !== undefined) return effect.type === "journal" ? effect.record.type : effect.type;
  return Object.keys(after).find((part) => before[part] !== after[part]) ?? null;
}

/** Times and counters go on, whatever comes; the rest is derived from members and tasks. */
const NOT_COMPARED: ReadonlySet<string> = new Set([
  "nowMs",
  "counters",
  "nextHedgeLookMs",
  "freeWorkers",
  "waitingTasks",
  "learners",
  "draining",
]);

/** What a restart would lose, part by part; what it would not changes with a record only. */
export function snapshotOf({ volatile }: CoordinatorState): Record<string, string> {
  const parts: Record<string, string> = {};
  for (const [part, value] of Object.entries(volatile))
    if (!NOT_COMPARED.has(part)) parts[part] = JSON.stringify(value, plain);
  return parts;
}

const plain = (_: string, value: unknown): unknown =>
  value instanceof Map ? [...value] : value instanceof Set ? [...value] : value;
