/** A rollout process: joins the run, holds its replicas in one compute thread, and performs the tasks it is given. */
import { ComputePool } from "../worker/compute-pool.js";
import { startWorker } from "../worker/start-worker.js";
import type { WorkerOptions } from "../worker/worker-options.js";
import type * as rolloutThread from "./rollout-thread.js";
import { RolloutSession, type RolloutState } from "./rollout-session.js";

/** Runs until the run is over, the process is told to stop, or an error ends it. */
export async function runRollout(options: WorkerOptions): Promise<void> {
  const compute = new ComputePool<typeof rolloutThread>("src/rollout/rollout-thread");
  const state: RolloutState = { compute, loaded: new Map(), configuredFor: "", policyVersion: undefined };
  try {
    await startWorker("rollout", options, {
      holdings: () => ({ policyVersion: state.policyVersion }),
      forget: () => {
        state.policyVersion = undefined; // parameters are known by their sha256, which holds in any run
      },
      perform: (session, context) => new RolloutSession(state, session, context).run(),
    });
  } finally {
    await compute.close();
  }
}
