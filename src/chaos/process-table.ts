/** The living processes of a run, as its launcher reports them, and which of them are stopped (SIGSTOP) right now. */
import type { SupervisorEvent } from "../launcher/supervisor.js";
import { EXIT_CODES } from "../shared/errors.js";
import type { ProcessRole } from "../shared/roles.js";

/** What the launcher says of a worker that no coordinator answered. */
const GAVE_UP = `exit code ${EXIT_CODES.UNREACHABLE} `;

export interface RunningProcess {
  readonly role: ProcessRole;
  /** `rollout-0` */
  readonly name: string;
  readonly pid: number;
}

export class ProcessTable {
  private readonly running = new Map<string, RunningProcess>();
  private readonly stopped = new Set<number>();
  private readonly timers = new Map<number, NodeJS.Timeout>();
  /** Learners that ended because no coordinator answered for a minute: what they held in memory is gone. */
  learnersGivenUp = 0;

  readonly note = (event: SupervisorEvent): void => {
    const { role, name } = event;
    if (event.type === "died" && role === "learner" && event.cause.text.startsWith(GAVE_UP))
      this.learnersGivenUp += 1;
    if (event.type === "started") this.running.set(name, { role, name, pid: event.pid });
    else this.forget(name);
  };

  /** Those that run: neither dead nor stopped. */
  active(role?: ProcessRole): RunningProcess[] {
    return [...this.running.values()].filter(
      (process) => (role === undefined || process.role === role) && !this.stopped.has(process.pid),
    );
  }

  /** Hits a process now. @returns whether it was still there */
  kill({ name, pid }: RunningProcess): boolean {
    this.forget(name);
    return signalTo(pid, "SIGKILL");
  }

  /** SIGSTOP now, SIGCONT after `ms`. @returns whether it was still there */
  stop({ pid }: RunningProcess, ms: number): boolean {
    if (!signalTo(pid, "SIGSTOP")) return false;
    this.stopped.add(pid);
    this.timers.set(
      pid,
      setTimeout(() => this.resume(pid), ms),
    );
    return true;
  }

  /** Lets every stopped process go on. */
  resumeAll(): void {
    for (const pid of [...this.stopped]) this.resume(pid);
  }

  private resume(pid: number): void {
    clearTimeout(this.timers.get(pid));
    this.timers.delete(pid);
    if (this.stopped.delete(pid)) signalTo(pid, "SIGCONT");
  }

  private forget(name: string): void {
    const process = this.running.get(name);
    this.running.delete(name);
    // Its number may soon be another process's.
    if (process === undefined) return;
    clearTimeout(this.timers.get(process.pid));
    this.timers.delete(process.pid);
    this.stopped.delete(process.pid);
  }
}

function signalTo(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch {
    return false; // ended meanwhile
  }
}
