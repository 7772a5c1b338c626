/**
 * Keeps the wanted number of processes of each role alive. A process that dies is reported with its cause and last
 * log lines and started again with backoff; an exit code that a restart cannot cure, or a role that used up its
 * restart budget, fails the whole run. Knows nothing of gRPC, files of the run or terminals.
 */
import { makeDeferred, sleep } from "../shared/abort.js";
import { EXIT_CODES, FATAL_EXIT_CODES, TroupeError } from "../shared/errors.js";
import { Child, type ChildCommand } from "./child.js";
import { errorCodeOfExit, exitCause, type ExitCause } from "./exit-cause.js";
import { DEFAULT_RESTART_POLICY, RestartBudget, type RestartPolicy } from "./restart-budget.js";
import type { ProcessRole } from "../shared/roles.js";

export type SupervisorEvent =
  | {
      readonly type: "started";
      readonly role: ProcessRole;
      readonly name: string;
      readonly pid: number;
      readonly restarts: number;
    }
  | {
      readonly type: "died";
      readonly role: ProcessRole;
      readonly name: string;
      readonly pid: number | undefined;
      readonly cause: ExitCause;
      readonly lastLines: readonly string[];
      readonly logPath: string;
      readonly restartInMs: number;
      /** Restarts of the role within the budget's window, this one included. */
      readonly used: number;
      readonly allowed: number;
    }
  /** A process ended itself in peace while it is still wanted: it was told to, or the coordinator went away. */
  | { readonly type: "left"; readonly role: ProcessRole; readonly name: string; readonly restartInMs: number }
  /** Ended on request: scaled down, or the run is over. */
  | { readonly type: "stopped"; readonly role: ProcessRole; readonly name: string };

export interface SupervisorOptions {
  /** The command of the `restarts`-th restart (0 = first start) of process `index` of `role`. */
  readonly commandFor: (role: ProcessRole, index: number, restarts: number) => ChildCommand;
  readonly onEvent: (event: SupervisorEvent) => void;
  /** Whether the run is done when the coordinator exits with 0; a polite SIGTERM ends it with 0 as well. @default always */
  readonly isFinished?: () => boolean;
  /**
   * What a worker that leaves with exit code 0 means: "restart" it, or take it as "done" (workers that joined a run
   * whose end only they see). @default "restart"
   */
  readonly onLeave?: "restart" | "done";
  readonly policy?: Partial<RestartPolicy>;
  readonly random?: () => number;
}

interface Slot {
  readonly role: ProcessRole;
  readonly index: number;
  /** Aborted when this process is no longer wanted. */
  readonly retired: AbortController;
  child: Child | undefined;
  restarts: number;
  isDone: boolean;
  done: Promise<void>;
}

/** From SIGTERM to SIGKILL at the end of a run. */
const STOP_GRACE_MS = 8_000;
/** The same while the run goes on without the process: a learner may hold what others still have to copy. */
export const RETIRE_GRACE_MS = 30_000;
/** The coordinator stops first: it sends the workers away, and each leaves once its work is handed back. */
const COORDINATOR_HEAD_START_MS = 4_000;

const COORDINATOR_POLL_MS = 200;

export class Supervisor {
  /** Resolves when the coordinator exited with 0 (or all workers are done); rejects with the error that ended the run. */
  readonly outcome: Promise<void>;
  readonly #outcome = makeDeferred<void>();
  readonly #slots = new Map<string, Slot>();
  readonly #budget: RestartBudget;
  #isEnding = false;
  readonly #killAll = () => this.killAll();

  constructor(readonly options: SupervisorOptions) {
    this.outcome = this.#outcome.promise;
    this.#budget = new RestartBudget({ ...DEFAULT_RESTART_POLICY, ...options.policy }, options.random);
    process.once("exit", this.#killAll);
  }

  /** Makes the processes 0 … count−1 of a role the wanted ones: starts what is missing, stops what is too many. */
  scale(role: ProcessRole, count: number): void {
    if (this.#isEnding) return;
    for (let index = 0; index < count; index++) {
      const slot = this.#slots.get(`${role}-${index}`);
      if (slot === undefined || slot.retired.signal.aborted) this.#open(role, index, slot);
    }
    for (const slot of this.#slots.values()) {
      if (slot.role !== role || slot.index < count || slot.retired.signal.aborted) continue;
      slot.retired.abort();
      void slot.child?.stop(RETIRE_GRACE_MS);
    }
  }

  /** The running child of that name. */
  child(role: ProcessRole, index: number): Child | undefined {
    const child = this.#slots.get(`${role}-${index}`)?.child;
    return child?.isRunning ? child : undefined;
  }

  /**
   * Stops everything, the coordinator first, and waits for it. Idempotent.
   * @param options.graceMs    time from SIGTERM to SIGKILL
   * @param options.patienceMs time to leave unasked, before SIGTERM: at the end of a run workers are told to by the
   *   coordinator
   */
  async stop({
    graceMs = STOP_GRACE_MS,
    patienceMs = 0,
  }: { graceMs?: number; patienceMs?: number } = {}): Promise<void> {
    this.#isEnding = true;
    const slots = [...this.#slots.values()];
    for (const slot of slots) slot.retired.abort();
    const everyoneLeft = Promise.all(slots.map((slot) => slot.done));
    await withinMs(everyoneLeft, patienceMs);

    const startedAtMs = performance.now();
    const coordinator = slots.find((slot) => slot.role === "coordinator")?.child;
    const workers = slots.filter((slot) => slot.role !== "coordinator");
    const coordinatorGone = Promise.resolve(coordinator?.stop(graceMs));
    await withinMs(coordinatorGone, Math.min(COORDINATOR_HEAD_START_MS, graceMs / 2));
    const leftMs = Math.max(0, graceMs - (performance.now() - startedAtMs));
    await Promise.all([coordinatorGone, ...workers.map((slot) => slot.child?.stop(leftMs))]);
    await everyoneLeft;
    process.removeListener("exit", this.#killAll);
    this.#outcome.resolve();
  }

  /** SIGKILL to every child: the last resort of a process that is itself going down. */
  killAll(): void {
    for (const slot of this.#slots.values()) slot.child?.kill("SIGKILL");
  }

  #open(role: ProcessRole, index: number, previous: Slot | undefined): void {
    const slot: Slot = {
      role,
      index,
      retired: new AbortController(),
      child: undefined,
      restarts: previous?.restarts ?? 0,
      isDone: false,
      done: Promise.resolve(),
    };
    this.#slots.set(`${role}-${index}`, slot);
    const run = async () => {
      await previous?.done; // one process per name at any time
      await this.#keepAlive(slot);
    };
    slot.done = run().catch((error: unknown) => this.#outcome.reject(error));
  }

  async #keepAlive(slot: Slot): Promise<void> {
    const { role, index, retired } = slot;
    while (!retired.signal.aborted) {
      const command = this.options.commandFor(role, index, slot.restarts);
      const child = Child.start(command);
      slot.child = child;
      if (child.pid !== undefined) {
        this.options.onEvent({
          type: "started",
          role,
          name: command.name,
          pid: child.pid,
          restarts: slot.restarts,
        });
      }
      const { code, signal } = await child.exited;
      if (retired.signal.aborted) {
        this.options.onEvent({ type: "stopped", role, name: command.name });
        return;
      }
      const hasLeft = code === 0 || (code === EXIT_CODES.CANCELLED && role !== "coordinator");
      const isEnd =
        role === "coordinator" ? (this.options.isFinished?.() ?? true) : this.options.onLeave === "done";
      if (hasLeft && isEnd) return this.#finish(slot);
      if (hasLeft) {
        await this.#afterLeaving(slot, child);
        continue;
      }
      await this.#afterDeath(slot, child, { code, signal });
    }
  }

  /** Reports the death and waits until the process may start again. @throws when the run cannot go on */
  async #afterDeath(
    slot: Slot,
    child: Child,
    exit: { code: number | null; signal: NodeJS.Signals | null },
  ): Promise<void> {
    const { role, retired } = slot;
    const { name, logPath } = child.command;
    const lastLines = child.lastLines();
    const cause = exitCause(exit, lastLines);
    if (role === "coordinator" && exit.code === EXIT_CODES.CANCELLED) {
      this.#isEnding = true;
      throw new TroupeError("CANCELLED", "the run was stopped");
    }
    const ending = `${name} ended: ${cause.text}${quoted(lastLines, logPath)}`;
    if (exit.code !== null && FATAL_EXIT_CODES.has(exit.code)) {
      this.#isEnding = true;
      const said = child.lastError();
      // The user's mistake in the program's own words; where they were said comes second.
      const message = said === undefined ? ending : `${said}\n  (${name}, ${cause.text}; log: ${logPath})`;
      throw new TroupeError(errorCodeOfExit(exit.code), message);
    }
    const decision = this.#budget.decide(role, name, performance.now(), child.uptimeMs);
    const { maxRestarts, windowMs } = this.#budget.policy;
    if (decision.type === "spent") {
      this.#isEnding = true;
      const budget = `role ${role} used up its budget of ${maxRestarts} restarts in ${Math.round(windowMs / 60_000)} min`;
      throw new TroupeError("BUDGET", `${budget}. Last: ${ending}`);
    }
    this.options.onEvent({
      type: "died",
      role,
      name,
      pid: child.pid,
      cause,
      lastLines,
      logPath,
      restartInMs: decision.delayMs,
      used: decision.used,
      allowed: maxRestarts,
    });
    slot.restarts++;
    await sleep(decision.delayMs, retired.signal);
  }

  /** No failure, so no budget: it comes back once there is a coordinator to join, though not in a tight loop. */
  async #afterLeaving(slot: Slot, child: Child): Promise<void> {
    const { signal } = slot.retired;
    const { name } = child.command;
    const { leaveDelayMs } = this.#budget.policy;
    const restartInMs = Math.max(leaveDelayMs, this.#budget.backoffMs(name, child.uptimeMs));
    // One that leaves just before the coordinator ends the run is not worth a report.
    await sleep(leaveDelayMs, signal);
    // Nor is one that leaves because the results are written: the coordinator only has to close its files.
    const isIdle = () => this.#isCoordinatorDown() || this.options.isFinished?.() === true;
    while (!signal.aborted && slot.role !== "coordinator" && isIdle())
      await sleep(COORDINATOR_POLL_MS, signal);
    if (signal.aborted) return;
    this.options.onEvent({ type: "left", role: slot.role, name, restartInMs });
    slot.restarts++;
    await sleep(restartInMs - leaveDelayMs, signal);
  }

  #isCoordinatorDown(): boolean {
    return this.#slots.has("coordinator-0") && this.child("coordinator", 0) === undefined;
  }

  #finish(slot: Slot): void {
    slot.isDone = true;
    if (slot.role !== "coordinator" && [...this.#slots.values()].some((other) => !other.isDone)) return;
    this.#isEnding = true;
    this.#outcome.resolve();
  }
}

function quoted(lines: readonly string[], logPath: string): string {
  if (lines.length === 0) return ` (it wrote nothing to ${logPath})`;
  return `\n${lines.map((line) => `    | ${line}`).join("\n")}\n  whole log: ${logPath}`;
}

/** Waits for `promise`, but not longer than `ms`; leaves no timer behind. */
async function withinMs(promise: Promise<unknown>, ms: number): Promise<void> {
  const patience = new AbortController();
  await Promise.race([promise, sleep(ms, patience.signal)]);
  patience.abort();
}
