/** Entry of a simulation thread: takes blocks of seeds, answers with counts and the seeds that failed. */
import { parentPort } from "node:worker_threads";
import { simulateSeed } from "./simulate.js";

export interface SeedBlock {
  readonly firstSeed: number;
  readonly count: number;
}

export interface BlockResult {
  readonly count: number;
  readonly events: number;
  readonly virtualMs: number;
  readonly failedSeeds: readonly number[];
}

export function simulateBlock({ firstSeed, count }: SeedBlock): BlockResult {
  let events = 0;
  let virtualMs = 0;
  const failedSeeds: number[] = [];
  for (let seed = firstSeed; seed < firstSeed + count; seed++) {
    const result = simulateSeed(seed);
    events += result.events;
    virtualMs += result.virtualMs;
    if (result.violations.length > 0) failedSeeds.push(seed);
  }
  return { count, events, virtualMs, failedSeeds };
}

parentPort?.on("message", (block: SeedBlock) => parentPort!.postMessage(simulateBlock(block)));
