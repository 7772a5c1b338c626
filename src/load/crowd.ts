/** Many workers in one process: each with its own registration, heartbeats, connection and streams, as a real one has. */

import { setMaxListeners } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LearnerSession } from "../learner/learner-session.js";
import { LearnerState } from "../learner/learner-state.js";
import { createLogger } from "../observability/logger.js";
import { createMetrics } from "../observability/metrics.js";
import { RolloutSession } from "../rollout/rollout-session.js";
import { RolloutState } from "../rollout/rollout-state.js";
import { makeDeferred } from "../shared/abort.js";
import { errorCodeOf } from "../shared/errors.js";
import { serveCoordinator, type LinkOptions, type Session } from "../worker/coordinator-link.js";
import { fakeLearnerCompute, fakeRolloutCompute } from "./fake-compute.js";
import { flood } from "./flooder.js";
import { responseTokensFor, type LoadOptions } from "./load-options.js";
import type { WorkerRole } from "../shared/roles.js";

export interface CrowdOptions extends LoadOptions {
  readonly coordinator: string;
  readonly tokens: Readonly<Record<WorkerRole, string>>;
  /** Names and how many of either role this process plays. */
  readonly firstRollout: number;
  readonly firstLearner: number;
  readonly firstFlooder: number;
}

/** Joins under way at a time: a storm of thousands would be what is measured. */
const MOST_JOINING = 32;

/** What happens to the workers of a crowd. */
export interface CrowdHooks {
  readonly onHeartbeat: (roundTripMs: number) => void;
  /** A worker has joined for the first time. */
  readonly onJoined: () => void;
  /** A worker found no coordinator for as long as workers wait, and starts again, as a supervisor would have it do. */
  readonly onGaveUp: () => void;
}

/** Plays the workers until `signal` aborts. */
export async function playCrowd(
  options: CrowdOptions,
  signal: AbortSignal,
  { onHeartbeat, onJoined, onGaveUp }: CrowdHooks,
): Promise<void> {
  setMaxListeners(0, signal); // every worker listens
  const scratchDir = await mkdtemp(join(tmpdir(), "troupe-load-"));
  const logger = createLogger({ role: "rollout", level: "warn" });
  const rolloutMetrics = createMetrics("rollout", { processMetrics: false });
  const learnerMetrics = createMetrics("learner", { processMetrics: false });
  const responseTokens = responseTokensFor(options.experienceBytes);
  const rolloutCompute = fakeRolloutCompute(responseTokens, options.taskMs);
  const learnerCompute = fakeLearnerCompute(options.gradientElements, options.stepMs);

  /** @param whenJoined called once */
  const play = async (role: WorkerRole, number: number, whenJoined: () => void, isFlooder = false) => {
    const workerId = `${isFlooder ? "flooder" : role}-${number}`;
    const link: LinkOptions = {
      role,
      coordinator: options.coordinator,
      // Its connection is its own: not shared with the others in this process, nor looked for among theirs.
      access: { token: options.tokens[role], channelOptions: { "grpc.use_local_subchannel_pool": 1 } },
      workerId,
      metricsAddress: "127.0.0.1:1",
      logger,
      signal,
      holdings: () => (role === "learner" ? learner.holdings() : rollout.holdings()),
      onOtherRun: () => undefined,
      onHeartbeat,
      onReconnect: () => logger.error({ worker_id: workerId }, "joined again"),
    };
    const rollout = new RolloutState(rolloutCompute as RolloutState["compute"]);
    const learner = new LearnerState(learnerCompute as LearnerState["compute"], scratchDir);
    let isNew = true;
    const perform = async (session: Session) => {
      if (isNew) {
        isNew = false;
        onJoined();
        whenJoined();
      }
      if (isFlooder) return flood(session, responseTokens, options.floodPerSecond);
      if (role === "rollout")
        return new RolloutSession(rollout, session, { logger, metrics: rolloutMetrics }).run();
      return (await LearnerSession.start(learner, session, { logger, metrics: learnerMetrics })).run();
    };
    while (!signal.aborted) {
      try {
        return await serveCoordinator(link, perform);
      } catch (error) {
        if (errorCodeOf(error) !== "UNREACHABLE") throw error;
        onGaveUp();
      }
    }
  };

  const parts = [
    ...range(options.learners).map((i) => ["learner", options.firstLearner + i, false] as const),
    ...range(options.flooders).map((i) => ["rollout", options.firstFlooder + i, true] as const),
    ...range(options.rollouts).map((i) => ["rollout", options.firstRollout + i, false] as const),
  ];
  const playing: Promise<void>[] = [];
  const joining = new Set<Promise<void>>();
  try {
    for (const [role, number, isFlooder] of parts) {
      while (joining.size >= MOST_JOINING) await Promise.race(joining);
      if (signal.aborted) break;
      const joined = makeDeferred<void>();
      joining.add(joined.promise);
      void joined.promise.then(() => joining.delete(joined.promise));
      // Who ends before it has joined is not waited for either; why it did is told below.
      playing.push(play(role, number, joined.resolve, isFlooder).finally(joined.resolve));
    }
    await Promise.all(playing);
  } finally {
    await logger.close();
    await rm(scratchDir, { recursive: true, force: true });
  }
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
