/**
 * One real child process. Its output goes straight to a log file, so nothing is lost when it crashes or when this
 * process dies. Its stdin is a pipe that this process holds open: it closes when this process is gone, however that
 * happened, and the child then ends itself (src/cli/lifetime.ts).
 */
import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, fstatSync, mkdirSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { sleep } from "../shared/abort.js";
import { storageError } from "../shared/errors.js";
import type { Exit } from "./exit-cause.js";
import { lastError, lastLogLines } from "./log-tail.js";

/** Tells a child that stdin is the launcher's pipe; see src/cli/lifetime.ts. */
export const PARENT_PIPE_VARIABLE = "TROUPE_PARENT_PIPE";

export interface ChildCommand {
  /** Unique within the run: `rollout-0`. */
  readonly name: string;
  readonly file: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly logPath: string;
}

/** Lines of log shown when a process dies. */
const LINES_SHOWN = 8;

export class Child {
  /** Never rejects; a command that could not be started ends with code 127. */
  readonly exited: Promise<Exit>;
  #exit: Exit | undefined;
  readonly #startedAtMs = performance.now();
  #endedAtMs: number | undefined;

  private constructor(
    readonly command: ChildCommand,
    readonly process: ChildProcess,
    readonly logStart: number,
  ) {
    // A child that dies while its stdin is open makes the pipe fail; its exit is what counts.
    process.stdin?.on("error", () => undefined);
    this.exited = new Promise((resolve) => {
      const end = (exit: Exit) => {
        this.#exit ??= exit;
        this.#endedAtMs ??= performance.now();
        process.stdin?.destroy();
        resolve(this.#exit);
      };
      process.once("exit", (code, signal) => end({ code, signal }));
      process.once("error", () => end({ code: 127, signal: null }));
    });
  }

  /** @throws {TroupeError} STORAGE when the log file cannot be written */
  static start(command: ChildCommand): Child {
    const log = openLog(command.logPath);
    try {
      const logStart = fstatSync(log).size;
      const child = spawn(command.file, [...command.args], {
        stdio: ["pipe", log, log],
        env: { ...command.env, [PARENT_PIPE_VARIABLE]: "1" },
      });
      return new Child(command, child, logStart);
    } finally {
      closeSync(log); // the child has its own copy
    }
  }

  get pid(): number | undefined {
    return this.process.pid;
  }

  get isRunning(): boolean {
    return this.#exit === undefined;
  }

  get uptimeMs(): number {
    return (this.#endedAtMs ?? performance.now()) - this.#startedAtMs;
  }

  lastLines(count = LINES_SHOWN): string[] {
    return lastLogLines(this.command.logPath, this.logStart, count);
  }

  /** What it said went wrong, whole; undefined when it ended without a word. */
  lastError(): string | undefined {
    return lastError(this.command.logPath, this.logStart);
  }

  kill(signal: NodeJS.Signals): void {
    if (this.isRunning) this.process.kill(signal);
  }

  /** SIGTERM now, SIGKILL after `graceMs`. Resolves when the process is gone. */
  async stop(graceMs: number): Promise<Exit> {
    this.kill("SIGTERM");
    const patience = new AbortController();
    const killed = sleep(graceMs, patience.signal).then(() => {
      if (!patience.signal.aborted) this.kill("SIGKILL");
    });
    const exit = await this.exited;
    patience.abort();
    await killed;
    return exit;
  }
}

function openLog(path: string): number {
  try {
    mkdirSync(dirname(path), { recursive: true });
    return openSync(path, "a");
  } catch (error) {
    throw storageError(`cannot write log file ${path}: ${(error as Error).message}`, { cause: error });
  }
}
