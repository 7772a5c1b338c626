/**
 * The coordinator's decision core. The shell's whole contract:
 *
 *   const state = makeState(config, replayedDurableState);
 *   execute(reduce(state, { type: "CoordinatorStarted" }, nowMs));   // opens a new epoch
 *   execute(reduce(state, event, nowMs));                            // one event at a time, monotonic clock
 *
 * and reduce `{ type: "Tick" }` at `nextDeadlineMs(state)`. `execute` makes the journal effects durable first.
 */
export { DEFAULT_CORE_CONFIG, type CoreConfig } from "./config.js";
export * from "./events.js";
export * from "./effects.js";
export * from "./records.js";
export { applyRecord } from "./apply-record.js";
export {
  emptyDurableState,
  keptCheckpoints,
  type Collection,
  type DurableState,
  type ExperienceEntry,
  type FinishedStep,
  type SavedCheckpoint,
} from "./durable.js";
export type { LedgerCounts } from "./durable.js";
export { compareExperienceIds, iterationOf } from "./experience-id.js";
export { RetainedIds } from "./retained-ids.js";
export { collectedIds, livePayloadIds } from "./retention.js";
export { makeState, type CoordinatorState } from "./state.js";
export { MAX_PATIENCE } from "./attempt-limit.js";
export { LEASE_EXPIRED } from "./lifecycle.js";
export { reduce } from "./reduce.js";
export { shareShards } from "./steps.js";
export { nextDeadlineMs } from "./deadlines.js";
export { status, type CoordinatorStatus, type MemberStatus } from "./status.js";
