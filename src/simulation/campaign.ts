/** Many seeds on all cores. */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { builtFile } from "../shared/paths.js";
import type { BlockResult, SeedBlock } from "./simulation-thread.js";

const BLOCK_SEEDS = 50;

export interface CampaignOptions {
  readonly firstSeed: number;
  readonly seeds: number;
  /** Default: one per core. */
  readonly threads?: number;
  /** Called after every block with what is done so far. */
  readonly onProgress?: (done: CampaignResult) => void;
}

export interface CampaignResult {
  readonly seeds: number;
  /** Simulated events. */
  readonly events: number;
  readonly virtualMs: number;
  /** Ascending. */
  readonly failedSeeds: readonly number[];
}

/** Runs the seeds `firstSeed .. firstSeed + seeds − 1` in threads of the compiled program. */
export async function runCampaign(options: CampaignOptions): Promise<CampaignResult> {
  const { firstSeed, seeds, threads = availableParallelism(), onProgress } = options;
  const endSeed = firstSeed + seeds;
  let nextSeed = firstSeed;
  let total: CampaignResult = { seeds: 0, events: 0, virtualMs: 0, failedSeeds: [] };

  const runThread = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const worker = new Worker(builtFile("src/simulation/simulation-thread"));
      const next = (): void => {
        if (nextSeed >= endSeed) {
          void worker.terminate().then(() => resolve());
          return;
        }
        const block: SeedBlock = { firstSeed: nextSeed, count: Math.min(BLOCK_SEEDS, endSeed - nextSeed) };
        nextSeed += block.count;
        worker.postMessage(block);
      };
      worker.on("error", reject);
      worker.on("message", (result: BlockResult) => {
        total = {
          seeds: total.seeds + result.count,
          events: total.events + result.events,
          virtualMs: total.virtualMs + result.virtualMs,
          failedSeeds: [...total.failedSeeds, ...result.failedSeeds].sort((a, b) => a - b),
        };
        onProgress?.(total);
        next();
      });
      next();
    });
  await Promise.all(Array.from({ length: Math.max(1, threads) }, runThread));
  return total;
}
