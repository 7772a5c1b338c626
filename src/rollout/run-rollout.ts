/** A rollout process: joins the run, holds its replicas in one compute thread, and performs the tasks it is given. */
import { ComputePool } from "../worker/compute-pool.js";
import { startWorker } from "../worker/start-worker.js";
import type { WorkerOptions } from "../worker/worker-options.js";
import type * as rolloutThread from "./rollout-thread.js";
import { RolloutSession } from "./rollout-session.js";
import { RolloutState } from "./rollout-state.js";

/** Runs until the run is over, the process is told to stop, or an error ends it. */
export async function runRollout(options: WorkerOptions): Promise<void> {
  const compute = new ComputePool<typeof rolloutThread>("src/rollout/rollout-thread");
  const state = new RolloutState(compute);
  try {
    await startWorker("rollout", options, {
      holdings: () => state.holdings(),
      forget: () => state.forget(),
      perform: (session, context) => new RolloutSession(state, session, context).run(),
    });
  } finally {
    await compute.close();
  }
}
