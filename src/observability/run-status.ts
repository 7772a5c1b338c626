/** What `GET /api/status` answers, and `troupe status` prints. Built by the coordinator, read by the dashboard. */
import type { WorkerRole } from "../shared/roles.js";

export interface WorkerStatus {
  readonly workerId: string;
  readonly role: WorkerRole;
  readonly state: "alive" | "suspect" | "draining" | "lost";
  readonly host: string;
  readonly pid: number;
  /** `host:port` of the worker's own /metrics; "" when it has none. */
  readonly metricsAddress: string;
  /** What it does now, in a few words, e.g. "generating 16 prompts". */
  readonly activity: string;
  readonly policyVersion: number;
  readonly restarts: number;
  readonly lastHeartbeatAgeMs: number;
}

/** admitted = trained + dropped + buffered, always; counts of experiences. */
export interface Ledger {
  readonly admitted: number;
  readonly trained: number;
  readonly dropped: number;
  readonly buffered: number;
  readonly droppedByReason: Readonly<Record<string, number>>;
  /** Asked for and given up before admission; not part of the balance. */
  readonly refusedByReason: Readonly<Record<string, number>>;
  /** Asked for, neither admitted nor given up yet; not part of the balance. */
  readonly inFlight: number;
  /** The trained ones, by how many versions the policy was ahead of the one that sampled them. */
  readonly trainedByStaleness: Readonly<Record<string, number>>;
}

export interface RunStatus {
  readonly runId: string;
  readonly name: string;
  readonly version: string;
  /** Running stage; null before the first and after the last. */
  readonly stage: string | null;
  readonly unit: "step" | "iteration" | "prompt";
  readonly completedUnits: number;
  readonly totalUnits: number;
  readonly optimizerStep: number;
  /** True while a step is due and too few learners are ready. */
  readonly isPaused: boolean;
  readonly policyVersion: number;
  readonly generation: number;
  readonly coordinatorEpoch: number;
  readonly elapsedMs: number;
  readonly ledger: Ledger;
  readonly workers: readonly WorkerStatus[];
  /** What the run's configuration demands; left out, the metrics about it stay 0. */
  readonly limits?: {
    /** Workers without which the running stage waits. */
    readonly requiredWorkers: Readonly<Record<WorkerStatus["role"], number>>;
    readonly bufferExperiences: number;
    readonly stalenessVersions: number;
  };
}
