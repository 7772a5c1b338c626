/** Many workers in one process: each with its own registration, heartbeats, connection and streams, as a real one has. */

import { setMaxListeners } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LearnerSession } from "../learner/learner-session.js";
import { LearnerState } from "../learner/learner-state.js";
import { createLogger } from "../observability/logger.js";
import { createMetrics } from "../observability/metrics.js";
import { RolloutSession, type RolloutState } from "../rollout/rollout-session.js";
import { sleep } from "../shared/abort.js";
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

/** Time between two joins: registrations of thousands must not be what is measured. */
const JOIN_GAP_MS = 2;

/** Plays the workers until `signal` aborts. @param onHeartbeat told every heartbeat's round trip */
export async function playCrowd(
  options: CrowdOptions,
  signal: AbortSignal,
  onHeartbeat: (role: WorkerRole, roundTripMs: number) => void,
): Promise<void> {
  setMaxListeners(0, signal); // every worker listens
  const scratchDir = await mkdtemp(join(tmpdir(), "troupe-load-"));
  const logger = createLogger({ role: "rollout", level: "warn" });
  const rolloutMetrics = createMetrics("rollout", { processMetrics: false });
  const learnerMetrics = createMetrics("learner", { processMetrics: false });
  const responseTokens = responseTokensFor(options.experienceBytes);
  const rolloutCompute = fakeRolloutCompute(responseTokens, options.taskMs);
  const learnerCompute = fakeLearnerCompute(options.gradientElements, options.stepMs);

  const play = (role: WorkerRole, number: number, isFlooder = false) => {
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
      holdings: () => (role === "learner" ? learner.holdings() : { policyVersion: rollout.policyVersion }),
      onOtherRun: () => undefined,
      onHeartbeat: (roundTripMs) => onHeartbeat(role, roundTripMs),
      onReconnect: () => logger.error({ worker_id: workerId }, "joined again"),
    };
    const rollout: RolloutState = {
      compute: rolloutCompute as RolloutState["compute"],
      loaded: new Map(),
      configuredFor: "",
      policyVersion: undefined,
    };
    const learner = new LearnerState(learnerCompute as LearnerState["compute"], scratchDir);
    const perform = async (session: Session) => {
      if (isFlooder) return flood(session, responseTokens, options.floodPerSecond);
      if (role === "rollout")
        return new RolloutSession(rollout, session, { logger, metrics: rolloutMetrics }).run();
      return (await LearnerSession.start(learner, session, { logger, metrics: learnerMetrics })).run();
    };
    return serveCoordinator(link, perform);
  };

  const playing: Promise<void>[] = [];
  try {
    for (let i = 0; i < options.learners; i++) playing.push(play("learner", options.firstLearner + i));
    for (let i = 0; i < options.flooders; i++) playing.push(play("rollout", options.firstFlooder + i, true));
    for (let i = 0; i < options.rollouts && !signal.aborted; i++) {
      playing.push(play("rollout", options.firstRollout + i));
      await sleep(JOIN_GAP_MS, signal);
    }
    await Promise.all(playing);
  } finally {
    await logger.close();
    await rm(scratchDir, { recursive: true, force: true });
  }
}
