/**
 * The way of an experience: from a worker's stream through admission and a synced append to the acknowledgement, with
 * nothing else going on. This process is the coordinator; a child plays the workers.
 */
import { fork } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startCollecting } from "../../load/collecting-coordinator.js";
import type { CrowdOptions } from "../../load/crowd.js";
import { JoinTokens } from "../../rpc/auth.js";
import { sleep } from "../../shared/abort.js";
import { builtFile } from "../../shared/paths.js";
import type { Side } from "./side.js";

export interface ExperienceConfig {
  readonly rollouts: number;
  readonly experienceBytes: number;
  readonly collection: number;
  readonly promptsPerTask: number;
}

const PROMPT_TOKENS = 14;

export async function open(config: ExperienceConfig): Promise<Side> {
  const folder = await mkdtemp(join(tmpdir(), "troupe-bench-"));
  const tokenFile = join(folder, "token");
  const lines = ["rollout", "learner"].map((role) => `${role} ${randomBytes(32).toString("hex")}\n`);
  await writeFile(tokenFile, lines.join(""), { mode: 0o600 });
  const tokens = JoinTokens.read(tokenFile);
  const coordinator = await startCollecting({ ...config, folder, tokenFile, promptTokens: PROMPT_TOKENS });
  const crowd = fork(builtFile("src/load/crowd-main"), {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
    execArgv: [],
  });
  crowd.send({
    ...config,
    learners: 0,
    flooders: 0,
    floodPerSecond: 0,
    gradientElements: 1,
    taskMs: 0,
    stepMs: 0,
    heartbeatMs: 1000,
    seconds: 0,
    coordinator: coordinator.address,
    tokens: { rollout: tokens.forRole("rollout"), learner: tokens.forRole("learner") },
    firstRollout: 0,
    firstLearner: 0,
    firstFlooder: 0,
  } satisfies CrowdOptions);
  while (coordinator.readyWorkers() < config.rollouts) await sleep(20);
  return {
    repeat: () => coordinator.collect(),
    async close() {
      crowd.kill("SIGKILL");
      await coordinator.close();
      await rm(folder, { recursive: true, force: true, maxRetries: 3 });
    },
  };
}
