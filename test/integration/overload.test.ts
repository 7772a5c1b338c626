import { fork, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { startCollecting, type CollectingCoordinator } from "../../src/load/collecting-coordinator.js";
import type { CrowdOptions } from "../../src/load/crowd.js";
import { JoinTokens } from "../../src/rpc/auth.js";
import { sleep } from "../../src/shared/abort.js";
import { builtFile } from "../../src/shared/paths.js";

const COLLECTION = 256;
const EXPERIENCE_BYTES = 16_384;
const COLLECTIONS = 5;
const WORKERS = 4;
const FLOODERS = 2;
/** Of intake, and what one message may add to it for each stream. */
const INTAKE_LIMIT = (64 << 20) + (WORKERS + FLOODERS) * (4 << 20);

let folder: string;
let coordinator: CollectingCoordinator;
let crowd: ChildProcess;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "troupe-overload-"));
  const tokenFile = join(folder, "token");
  const lines = ["rollout", "learner"].map((role) => `${role} ${randomBytes(32).toString("hex")}\n`);
  writeFileSync(tokenFile, lines.join(""), { mode: 0o600 });
  const tokens = JoinTokens.read(tokenFile);
  coordinator = await startCollecting({
    folder,
    tokenFile,
    collection: COLLECTION,
    promptsPerTask: 8,
    promptTokens: 14,
  });
  crowd = fork(builtFile("src/load/crowd-main"), {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
    execArgv: [],
  });
  crowd.send({
    rollouts: WORKERS,
    learners: 0,
    flooders: FLOODERS,
    floodPerSecond: 0,
    experienceBytes: EXPERIENCE_BYTES,
    gradientElements: 1,
    collection: COLLECTION,
    promptsPerTask: 8,
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
  while (coordinator.readyWorkers() < WORKERS) await sleep(20);
});

afterEach(async () => {
  crowd.kill("SIGKILL");
  await coordinator.close();
  rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
});

it("workers that send all the stream takes, asked for or not: what is held stays bounded, nothing is lost, the books balance", async () => {
  const most = { intake: 0, buffer: 0 };
  const watch = setInterval(() => {
    const { intake, buffer } = coordinator.heldBytes();
    most.intake = Math.max(most.intake, intake);
    most.buffer = Math.max(most.buffer, buffer);
    const { admitted, trained, dropped, buffered } = coordinator.ledger();
    expect(admitted).toBe(trained + dropped + buffered);
  }, 5);
  for (let i = 0; i < COLLECTIONS; i++) {
    expect(await coordinator.collect()).toBe(COLLECTION);
    // Nobody asks for anything now, and the flood goes on.
    await sleep(200);
  }
  clearInterval(watch);
  expect(coordinator.ledger()).toMatchObject({
    admitted: COLLECTIONS * COLLECTION,
    buffered: 0,
    inFlight: 0,
  });
  expect(coordinator.refused()).toBeGreaterThan(COLLECTION);
  expect(most.buffer).toBeGreaterThan(0);
  expect(most.buffer).toBeLessThanOrEqual(COLLECTION * (EXPERIENCE_BYTES + 256));
  expect(most.intake).toBeLessThanOrEqual(INTAKE_LIMIT);
}, 60_000);
