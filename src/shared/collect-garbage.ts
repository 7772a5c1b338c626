/**
 * Memory that threads share does not count for V8's decision to collect: what is dropped of it stays until something
 * else makes a thread do so. Whoever drops much of it, and is about to take as much again, collects first.
 */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

let collect: (() => void) | undefined;

/** Frees what this thread holds no more; takes some ten milliseconds. */
export function collectGarbage(): void {
  if (collect === undefined) {
    setFlagsFromString("--expose-gc"); // seen by contexts made after it
    collect = runInNewContext("gc") as () => void;
  }
  collect();
}
