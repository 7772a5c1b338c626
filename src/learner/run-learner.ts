/** A learner process: joins the run, keeps its models in one compute thread, and does what the coordinator directs. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { WorkerOptions } from "../worker/worker-options.js";
import { startWorker } from "../worker/start-worker.js";
import { ComputePool } from "../worker/compute-pool.js";
import { LearnerSession } from "./learner-session.js";
import { LearnerState } from "./learner-state.js";
import type * as learnerThread from "./learner-thread.js";

/** Runs until the run is over, the process is told to stop, or an error ends it. */
export async function runLearner(options: WorkerOptions): Promise<void> {
  const compute = new ComputePool<typeof learnerThread>("src/learner/learner-thread");
  const scratchDir = await mkdtemp(join(tmpdir(), "troupe-learner-"));
  // Outlives a broken connection: a learner that comes back with its parameters need not copy them again.
  const state = new LearnerState(compute, scratchDir);
  try {
    await startWorker("learner", options, {
      holdings: () => state.holdings(),
      forget: () => state.forget(),
      perform: async (session, context) => (await LearnerSession.start(state, session, context)).run(),
    });
  } finally {
    await compute.close();
    await rm(scratchDir, { recursive: true, force: true });
  }
}
