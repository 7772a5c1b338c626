/**
 * What a compute thread and its process tell each other while a task is at work: memory they share, since the thread
 * hears no message before the task is done.
 */
import { TroupeError } from "../shared/errors.js";

const ADVANCED = 0;
const CANCELLED = 1;

/** int32[2]; moves to a thread as it is. */
export type TaskSignals = Int32Array<SharedArrayBuffer>;

export const makeTaskSignals = (): TaskSignals => new Int32Array(new SharedArrayBuffer(8));

/** Grows while work advances: tokens, passes, files. */
export const advancedBy = (signals: TaskSignals): number => Atomics.load(signals, ADVANCED);

export function noteAdvance(signals: TaskSignals, count = 1): void {
  Atomics.add(signals, ADVANCED, count);
}

export function cancelTask(signals: TaskSignals): void {
  Atomics.store(signals, CANCELLED, 1);
}

/** @throws {TroupeError} CANCELLED when nobody wants the task any more */
export function throwIfCancelled(signals: TaskSignals): void {
  if (Atomics.load(signals, CANCELLED) !== 0) throw new TroupeError("CANCELLED", "the task was taken away");
}
