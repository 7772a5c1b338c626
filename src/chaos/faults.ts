/** Which faults will happen, drawn from a seed: what is hit, with what, in which phase, how long after it began. */
import { streamOf, uniformAt } from "../shared/rng.js";
import type { ProcessRole } from "../shared/roles.js";
import { AIMED_PHASES, type AimedPhase, type Phase } from "./phase.js";

export const FAULT_ROLES = ["rollout", "learner", "coordinator"] as const satisfies readonly ProcessRole[];
export type FaultSignal = "SIGKILL" | "SIGSTOP";

export interface PlannedFault {
  /** From 1. */
  readonly number: number;
  readonly role: ProcessRole;
  readonly signal: FaultSignal;
  readonly phase: AimedPhase;
  /** From the moment the phase is seen, ms. */
  readonly delayMs: number;
  /** Time until SIGCONT, ms; 0 with SIGKILL. */
  readonly stoppedMs: number;
  /** Which of the n living processes of the role: ⌊pick·n⌋. In [0, 1). */
  readonly pick: number;
}

export interface FaultOptions {
  readonly seed: number;
  readonly roles: readonly ProcessRole[];
  readonly signals: readonly FaultSignal[];
  /** SIGSTOP lasts from 100 ms to this. Above the lease, so that some of the stopped are given up meanwhile. */
  readonly longestStopMs: number;
}

/** How long after its beginning a phase is still likely to go on, ms. */
const LONGEST_DELAY_MS: Readonly<Record<AimedPhase, number>> = {
  supervised: 400,
  collecting: 40,
  updating: 25,
  publishing: 15,
  checkpointing: 15,
};
const SHORTEST_STOP_MS = 100;

/** The fault of that number: a pure function of its arguments. */
export function plannedFault(number: number, options: FaultOptions): PlannedFault {
  const draw = (what: string): number => uniformAt(options.seed, streamOf(`fault/${what}`), number);
  const oneOf = <T>(values: readonly T[], what: string): T => values[Math.floor(draw(what) * values.length)];
  const phase = oneOf(AIMED_PHASES, "phase");
  const signal = oneOf(options.signals, "signal");
  const stopMs = SHORTEST_STOP_MS + draw("stop") * (options.longestStopMs - SHORTEST_STOP_MS);
  return {
    number,
    role: oneOf(options.roles, "role"),
    signal,
    phase,
    delayMs: draw("delay") * LONGEST_DELAY_MS[phase],
    stoppedMs: signal === "SIGSTOP" ? Math.round(stopMs) : 0,
    pick: draw("victim"),
  };
}

/** A fault that happened. */
export interface InjectedFault {
  readonly planned: PlannedFault;
  readonly run: number;
  /** Wall clock, Unix ms: compared with the times in the coordinator's log. */
  readonly atMs: number;
  readonly name: string;
  readonly pid: number;
  /** What the run was seen doing then. */
  readonly phase: Phase;
  readonly stage: string;
  readonly iteration: number;
  readonly optimizerStep: number;
  /** Workers that were registered and running then, and not hit. */
  readonly survivors: readonly number[];
}
