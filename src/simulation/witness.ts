/** What the checker needs to know of the coordinator's events and answers; written from outside of it. */
import type { CoordinatorEvent, CoordinatorState, DurableRecord, Effect } from "../coordinator/core/index.js";
import type { World } from "./world.js";

export class Witness {
  private readonly heartbeatAtMs = new Map<number, number>();

  constructor(private readonly world: World) {}

  /** @param state after the event */
  note(event: CoordinatorEvent, effects: readonly Effect[], state: CoordinatorState): void {
    const { history, scheduler } = this.world;
    const { entries } = history;
    if (event.type === "WorkerHeartbeat") this.heartbeatAtMs.set(event.incarnation, scheduler.nowMs);
    if (event.type === "WorkerDisconnected" || event.type === "WorkerLeft") {
      entries.push({ type: "removed", workerId: event.workerId, incarnation: event.incarnation });
    }
    for (const effect of effects) {
      if (effect.type === "AcceptWorker") {
        this.heartbeatAtMs.set(effect.incarnation, scheduler.nowMs);
        entries.push({ type: "accepted", workerId: effect.workerId, incarnation: effect.incarnation });
      } else if (effect.type === "FenceWorker" || effect.type === "ReleaseWorker") {
        entries.push({ type: "removed", workerId: effect.workerId, incarnation: effect.incarnation });
        if (event.type === "Tick" && effect.type === "FenceWorker" && effect.reason.includes("heartbeat")) {
          const silentMs = scheduler.nowMs - (this.heartbeatAtMs.get(effect.incarnation) ?? 0);
          entries.push({ type: "expired", workerId: effect.workerId, silentMs });
        }
      } else if (effect.type === "AckExperiences" && event.type === "ExperiencesReceived") {
        const { workerId, incarnation } = event;
        effect.experiences.forEach(({ experienceId }, i) =>
          entries.push({
            type: "judged",
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
      entries.push({ type: "ledger", admitted, trained, dropped: droppedCount, buffered, bufferedBytes });
  }
}

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
