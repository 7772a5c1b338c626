/** What the checker needs to know of the coordinator's events and answers; written from outside of it. */
import {
  collectedIds,
  iterationOf,
  type CoordinatorEvent,
  type CoordinatorState,
  type DurableRecord,
  type DurableState,
  type Effect,
} from "../coordinator/core/index.js";
import { changeOf, snapshotOf, Strays } from "./strays.js";
import type { World } from "./world.js";

/** Looks at the time without an event: what it makes due comes at once, or next. */
const TICKS = 3;

export class Witness {
  private readonly heartbeatAtMs = new Map<number, number>();
  private owner = 0;
  private strays = new Strays();

  constructor(private readonly world: World) {}

  /** Another coordinator process. */
  begin(owner: number): void {
    this.owner = owner;
    this.strays = new Strays();
  }

  /** Hands the event to the core. What must change nothing is looked at closely, with nothing left that time alone does. */
  watch(
    event: CoordinatorEvent,
    state: CoordinatorState,
    reduceNow: (event: CoordinatorEvent) => readonly Effect[],
  ): void {
    if (this.strays.ruleOf(event) === null) return void reduceNow(event);
    for (let tick = 0; tick < TICKS && reduceNow({ type: "Tick" }).length > 0; tick++);
    const rule = this.strays.ruleOf(event);
    if (rule === null || state.volatile.stopped !== null) return void reduceNow(event);
    const before = snapshotOf(state);
    const effects = reduceNow(event);
    const change = changeOf(before, snapshotOf(state), effects);
    if (change === null) return;
    const workerId = "workerId" in event ? (event.workerId ?? "nobody") : "nobody";
    this.world.history.entries.push({ type: "strayed", rule, event: event.type, workerId, change });
  }

  /** An effect leaves the coordinator: as much is durable now as ever was before somebody heard of it. */
  hear(effect: Effect, durable: DurableState): void {
    const { entries, records } = this.world.history;
    switch (effect.type) {
      case "AckExperiences":
        effect.experiences.forEach(({ experienceId }, i) => {
          const outcome = effect.outcomes[i];
          entries.push({ type: "acked", experienceId, outcome, durable: records.length });
        });
        return;
      case "AssignTask": {
        const { taskId, workerId } = effect;
        if (effect.redelivery === "hedge") entries.push({ type: "hedged", taskId, workerId });
        return;
      }
      case "AcceptWorker": {
        const { workerId, incarnation, epoch } = effect;
        entries.push({ type: "welcomed", workerId, incarnation, epoch, durable: records.length });
        return;
      }
      case "StartStep": {
        const { generation, step, members, isReplay, experienceIds } = effect;
        const incarnations = members.map((member) => member.incarnation);
        const collections = collectionsOf(durable, experienceIds).map((ids) => ids.join(" "));
        entries.push({ type: "started", generation, step, incarnations, isReplay, collections });
        return;
      }
      case "CommitStep": {
        const { generation, step, hash } = effect;
        entries.push({ type: "committed", generation, step, hash, durable: records.length });
        return;
      }
      default:
    }
  }

  restore(checkpointId: string, isDamaged: boolean): void {
    const { entries, records } = this.world.history;
    entries.push({ type: "restored", checkpointId, isDamaged, durable: records.length });
  }

  /** @param state after the event */
  note(event: CoordinatorEvent, effects: readonly Effect[], state: CoordinatorState): void {
    const { history, scheduler } = this.world;
    const { entries } = history;
    const { owner } = this;
    this.strays.note(event, effects);
    if (event.type === "WorkerHeartbeat") this.heartbeatAtMs.set(event.incarnation, scheduler.nowMs);
    if (event.type === "WorkerDisconnected" || event.type === "WorkerLeft") {
      entries.push({ type: "removed", owner, workerId: event.workerId, incarnation: event.incarnation });
    }
    for (const effect of effects) {
      if (effect.type === "AcceptWorker") {
        this.heartbeatAtMs.set(effect.incarnation, scheduler.nowMs);
        entries.push({ type: "accepted", owner, workerId: effect.workerId, incarnation: effect.incarnation });
      } else if (effect.type === "FenceWorker" || effect.type === "ReleaseWorker") {
        entries.push({ type: "removed", owner, workerId: effect.workerId, incarnation: effect.incarnation });
        if (event.type === "Tick" && effect.type === "FenceWorker" && effect.reason.includes("heartbeat")) {
          const silentMs = scheduler.nowMs - (this.heartbeatAtMs.get(effect.incarnation) ?? 0);
          entries.push({ type: "expired", workerId: effect.workerId, silentMs });
        }
      } else if (effect.type === "AckEvaluation" && effect.outcome === "accepted") {
        const { taskId, attempt } = effect;
        entries.push({ type: "evaluated", owner, taskId, attempt });
      } else if (effect.type === "AckExperiences" && event.type === "ExperiencesReceived") {
        const { workerId, incarnation } = event;
        effect.experiences.forEach(({ experienceId }, i) =>
          entries.push({
            type: "judged",
            owner,
            workerId,
            incarnation,
            experienceId,
            outcome: effect.outcomes[i],
            records: recordsOwedTo(experienceId, effect.experiences, effects),
          }),
        );
      }
    }
    const { admitted, trained, buffered, bufferedBytes, dropped } = state.durable.counts;
    const droppedCount = Object.values(dropped).reduce((sum, count) => sum + count, 0);
    if (effects[0]?.type === "journal")
      entries.push({
        type: "ledger",
        owner,
        admitted,
        trained,
        dropped: droppedCount,
        buffered,
        bufferedBytes,
      });
  }
}

/** The whole collections these experiences belong to. */
export const collectionsOf = (durable: DurableState, experienceIds: readonly string[]): string[][] =>
  [...new Set(experienceIds.map(iterationOf))].map((iteration) => collectedIds(durable, iteration));

/** A step that waited for learners until this moment begins with whatever event comes then. */
const DUE_BY_TIME: ReadonlySet<DurableRecord["type"]> = new Set(["StepPrepared", "GenerationOpened"]);

/** Journal records of one event that name the experience, or none of those that came with it. */
function recordsOwedTo(
  experienceId: string,
  together: readonly { readonly experienceId: string }[],
  effects: readonly Effect[],
): number {
  return effects.filter((effect) => {
    if (effect.type !== "journal" || DUE_BY_TIME.has(effect.record.type)) return false;
    const named = "experienceIds" in effect.record ? effect.record.experienceIds : [];
    return named.includes(experienceId) || !together.some((other) => named.includes(other.experienceId));
  }).length;
}
