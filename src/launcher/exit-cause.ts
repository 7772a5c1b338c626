/** Why a process ended, from its exit code or signal and what it last wrote. */
import { EXIT_CODES, FATAL_EXIT_CODES, type ErrorCode } from "../shared/errors.js";

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export type ExitKind = "ok" | "oom" | "killed" | "segv" | "abort" | "signal" | "fatal" | "error";

export interface ExitCause {
  readonly kind: ExitKind;
  /** For people: `out of memory: the JavaScript heap is full (SIGABRT)`. */
  readonly text: string;
}

/** What V8 prints before it aborts for lack of heap. */
const HEAP_FULL = /heap out of memory|Reached heap limit|Allocation failed - JavaScript heap/i;

const MEANINGS: ReadonlyMap<number, string> = new Map([
  [EXIT_CODES.CONFIG, "usage or configuration"],
  [EXIT_CODES.BUDGET, "restart budget spent"],
  [EXIT_CODES.NUMERIC, "numeric failure"],
  [EXIT_CODES.DATA, "bad data or model"],
  [EXIT_CODES.UNREACHABLE, "coordinator unreachable"],
  [EXIT_CODES.INTERNAL, "internal error"],
  [EXIT_CODES.RUN_DIR_IN_USE, "run directory in use"],
  [EXIT_CODES.STORAGE, "storage: disk full, permission or I/O error"],
  [EXIT_CODES.FENCED, "replaced by a newer process"],
  [EXIT_CODES.AUTH, "join token missing or wrong"],
  [EXIT_CODES.CANCELLED, "interrupted"],
]);

/** Shells and containers report a signal as 128 + its number. */
const SIGNAL_CODES: ReadonlyMap<number, NodeJS.Signals> = new Map([
  [132, "SIGILL"],
  [134, "SIGABRT"],
  [135, "SIGBUS"],
  [137, "SIGKILL"],
  [139, "SIGSEGV"],
  [143, "SIGTERM"],
]);

/** @param lastLines what the process wrote last, to tell a full heap from other aborts */
export function exitCause({ code, signal }: Exit, lastLines: readonly string[] = []): ExitCause {
  const effective = signal ?? (code === null ? undefined : SIGNAL_CODES.get(code));
  if (effective !== undefined) return signalCause(effective, lastLines);
  if (code === 0) return { kind: "ok", text: "left (exit code 0)" };
  const number = code ?? EXIT_CODES.INTERNAL;
  const meaning = MEANINGS.get(number);
  const text = `exit code ${number}${meaning === undefined ? "" : ` (${meaning})`}`;
  return { kind: FATAL_EXIT_CODES.has(number) ? "fatal" : "error", text };
}

function signalCause(signal: NodeJS.Signals, lastLines: readonly string[]): ExitCause {
  switch (signal) {
    case "SIGABRT":
      return lastLines.some((line) => HEAP_FULL.test(line))
        ? { kind: "oom", text: "out of memory: the JavaScript heap is full (SIGABRT)" }
        : { kind: "abort", text: "aborted by native code (SIGABRT)" };
    case "SIGKILL":
      return { kind: "killed", text: "killed (SIGKILL): by hand, or by the kernel for want of memory" };
    case "SIGSEGV":
    case "SIGBUS":
    case "SIGILL":
      return { kind: "segv", text: `crashed in native code (${signal})` };
    default:
      return { kind: "signal", text: `ended by ${signal}` };
  }
}

/** The error a supervisor ends with when a process ended with this code. */
export function errorCodeOfExit(code: number): ErrorCode {
  const [name] = (Object.entries(EXIT_CODES) as [ErrorCode, number][]).find(
    ([, value]) => value === code,
  ) ?? ["INTERNAL"];
  return name;
}
