/** How long a coordinator takes to open a journal and fold it into its state. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DurableRecord } from "../coordinator/core/index.js";
import { openLevelLog } from "../coordinator/journal/index.js";

const EXPERIENCES = 16;
const STEPS = 4;
const PAYLOAD_BYTES = 512;
const BATCH = 50;

export interface ReplayTime {
  readonly records: number;
  readonly ms: number;
}

/** Writes a journal of at least `records` records, none of them folded into a snapshot, and times its recovery. */
export async function timeReplay(records: number): Promise<ReplayTime> {
  const folder = await mkdtemp(join(tmpdir(), "troupe-replay-"));
  try {
    const writing = await openLevelLog(folder, { compactEveryRecords: Infinity });
    const history = historyOf(records);
    for (let first = 0; first < history.length; first += BATCH)
      await writing.append(
        history.slice(first, first + BATCH).map((record) => ({
          record,
          put:
            record.type === "ExperiencesAdmitted"
              ? record.experienceIds.map((id) => ({ id, bytes: new Uint8Array(PAYLOAD_BYTES) }))
              : [],
        })),
      );
    await writing.close();
    const startedMs = performance.now();
    const log = await openLevelLog(folder);
    await log.recover();
    const ms = performance.now() - startedMs;
    await log.close();
    return { records: history.length, ms };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The records of a run of PPO iterations, until there are `count` or a few more. */
export function historyOf(count: number): DurableRecord[] {
  const records: DurableRecord[] = [
    { type: "EpochStarted", epoch: 1 },
    { type: "StageStarted", stage: "ppo" },
    { type: "VersionPublished", policyVersion: 0, sha256: "0".repeat(64) },
  ];
  let step = 0;
  for (let iteration = 0; records.length < count; iteration++) {
    const ids = Array.from({ length: EXPERIENCES }, (_, i) => `${iteration}/${i}/0`);
    records.push({ type: "IterationStarted", iteration, promptCursor: iteration * EXPERIENCES });
    records.push({
      type: "CollectionOpened",
      iteration,
      policyVersion: iteration,
      tasks: [{ taskId: `collect/${iteration}#0`, experienceIds: ids }],
    });
    for (const experienceId of ids)
      records.push({
        type: "ExperiencesAdmitted",
        policyVersion: iteration,
        experienceIds: [experienceId],
        bytes: [PAYLOAD_BYTES],
      });
    for (let i = 1; i <= STEPS; i++) {
      step += 1;
      const isFinalUse = i === STEPS;
      const manifest = { experienceIds: ids, input: null, shardCount: 4, isFinalUse };
      records.push({ type: "StepPrepared", stage: "ppo", generation: step, step, ...manifest });
      records.push({ type: "StepCommitted", stage: "ppo", generation: step, step, hash: "00000000" });
    }
    const policyVersion = iteration + 1;
    records.push({ type: "VersionPublished", policyVersion, sha256: "0".repeat(64) });
    records.push({
      type: "IterationCommitted",
      iteration,
      promptCursor: policyVersion * EXPERIENCES,
      resume: null,
    });
    const checkpointId = `ppo-${step}`;
    records.push({ type: "CheckpointSaved", checkpointId, stage: "ppo", step, resume: null, keptFrom: step });
  }
  return records;
}
