/**
 * Checkpoints under DIR/checkpoints: written into a temporary folder, synced file by file, sealed with a manifest of
 * sha256 sums, renamed, then named by `latest`. A crash at any moment leaves the old one or the new one, never a part.
 * Every checkpoint is also a Hugging Face model directory, with the whole training state beside it.
 */
import { copyFile, readFile, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { ArtifactRef__Output } from "../rpc/generated/troupe/v1/ArtifactRef.js";
import type { Logger } from "../observability/logger.js";
import type { Metrics } from "../observability/metrics.js";
import type { EventBus } from "../observability/progress.js";
import { dataError, describeError } from "../shared/errors.js";
import { digestOfFile } from "../shared/file-digest.js";
import { placeSynced, replaceSynced } from "../shared/synced-files.js";
import type { ArtifactStore } from "./artifact-store.js";
import { keptCheckpoints, type JsonValue } from "./core/index.js";
import type { CoreHost } from "./core-host.js";
import type { DurableFiles } from "./journal/durable-files.js";
import type { LearnerGroup } from "./learner-group.js";
import type { ModelFolders, ModelSource } from "./model-folders.js";

export interface CheckpointRequest {
  readonly stage: "sft" | "reward" | "ppo";
  /** Optimizer step the state stands after. */
  readonly step: number;
  readonly completedUnits: number;
  /** What the stage needs besides the learners' state. */
  readonly resume: JsonValue;
  /** The model written as a loadable directory, and its role among the learners' models. */
  readonly model: ModelSource;
  readonly role: string;
  readonly head: "lm" | "scalar";
}

/** Everything needed to go on: parameters, moments, averages of every model. */
const STATE_FILE = "training-state.safetensors";

/** Starts the name of a checkpoint that is being written. */
const PARTIAL = ".tmp-";

/** Starts the name of a checkpoint that was found damaged. */
const DAMAGED = "damaged-";

const manifestSchema = z.object({
  version: z.literal(1),
  checkpointId: z.string(),
  runId: z.string(),
  stage: z.string(),
  step: z.int().min(0),
  completedUnits: z.int().min(0),
  /** Names without a path: what lies directly in the folder. */
  files: z.array(
    z.object({
      name: z.string().regex(/^[^/\\]+$/),
      sizeBytes: z.int().min(0),
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
    }),
  ),
});

type Manifest = z.infer<typeof manifestSchema>;

export interface CheckpointerOptions {
  readonly runDir: string;
  readonly runId: string;
  readonly keepLast: number;
  /** Every checkpoint after a multiple of this many units stays; 0 keeps none but the last. */
  readonly keepEvery: number;
  readonly host: CoreHost;
  readonly learners: LearnerGroup;
  readonly artifacts: ArtifactStore;
  readonly models: ModelFolders;
  readonly files: DurableFiles;
  readonly bus: EventBus;
  readonly metrics: Metrics<"coordinator">;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

const RESTORE =
  "put its files back from a copy, or start another run from a model that is whole (model.path: a folder under models/ or checkpoints/)";

export class Checkpointer {
  private readonly folder: string;

  constructor(private readonly options: CheckpointerOptions) {
    this.folder = join(options.runDir, "checkpoints");
    options.host.on(
      "SetAsideCheckpoint",
      ({ checkpointId, reason }) => void this.setAside(checkpointId, reason),
    );
  }

  /** Takes away what an earlier process had begun to write when it was killed. */
  async clean(): Promise<void> {
    for (const name of await readdir(this.folder))
      if (name.startsWith(PARTIAL)) await rm(join(this.folder, name), { recursive: true, force: true });
  }

  /** Never deletes: a file may be put back by hand. Learners go on from the checkpoint before. */
  private async setAside(checkpointId: string, reason: string): Promise<void> {
    const { metrics, logger, bus } = this.options;
    metrics.checkpointsDamaged.inc();
    const target = join(this.folder, `${DAMAGED}${checkpointId}`);
    const what = reason.replace(`; ${RESTORE}`, ""); // there is an older one: nothing needs to be done by hand
    const text = `${what}; it is set aside as ${target}, and the run goes on from the checkpoint before`;
    logger.error({ checkpoint: checkpointId }, text);
    bus.publish({ type: "message", level: "error", text });
    try {
      await rm(target, { recursive: true, force: true });
      await rename(join(this.folder, checkpointId), target);
      await this.options.files.drop(join(this.folder, checkpointId));
      const newest = this.options.host.state.durable.checkpoint?.checkpointId;
      if (newest === undefined) await rm(join(this.folder, "latest"), { force: true });
      else await this.name(newest);
    } catch (error) {
      logger.warn({ err: error }, `checkpoint ${checkpointId} could not be moved`);
    }
  }

  /**
   * A checkpoint that cannot be written does not end training, which goes on from the one before; it is logged, told
   * and counted.
   * @returns whether there is a new one
   * @throws {TroupeError} the reason the run was stopped, when it was
   */
  async save(request: CheckpointRequest): Promise<boolean> {
    const { artifacts, bus, metrics, logger, signal } = this.options;
    const { stage, step } = request;
    const checkpointId = `${stage}-${String(step).padStart(6, "0")}`;
    const names = { state: `checkpoint/${checkpointId}/state`, model: `checkpoint/${checkpointId}/model` };
    const partial = join(this.folder, `${PARTIAL}${checkpointId}-${process.pid}`);
    try {
      await this.write(request, checkpointId, names, partial);
      return true;
    } catch (error) {
      if (signal.aborted) throw error;
      metrics.checkpointFailures.inc();
      const text = `checkpoint ${checkpointId} could not be written (${describeError(error)}); training goes on, and a restart would repeat the steps since the one before`;
      logger.error({ err: error }, text);
      bus.publish({ type: "message", level: "error", text });
      return false;
    } finally {
      await rm(partial, { recursive: true, force: true }).catch(() => undefined);
      for (const name of Object.values(names)) await artifacts.remove(name).catch(() => undefined);
    }
  }

  private async write(
    request: CheckpointRequest,
    checkpointId: string,
    names: { readonly state: string; readonly model: string },
    partial: string,
  ): Promise<void> {
    const { host, learners, artifacts, models, bus, metrics, runId, signal } = this.options;
    const startedMs = performance.now();
    const { stage, step } = request;
    await learners.publish(
      [
        { what: "state", artifactName: names.state },
        { what: `model:${request.role}`, artifactName: names.model },
      ],
      signal,
    );
    await models.write(partial, request.model, request.head, artifacts.get(names.model).localPath);
    await copyFile(artifacts.get(names.state).localPath, join(partial, STATE_FILE));
    await writeFile(join(partial, "resume.json"), JSON.stringify(request.resume));
    const files = [];
    for (const name of (await readdir(partial)).sort())
      files.push({ name, ...(await digestOfFile(join(partial, name))) });
    const { completedUnits } = request;
    const manifest: Manifest = { version: 1, checkpointId, runId, stage, step, completedUnits, files };
    await writeFile(join(partial, "manifest.json"), JSON.stringify(manifest, null, 2));
    const target = join(this.folder, checkpointId);
    await placeSynced(partial, target);
    await this.options.files.keep(target);
    await this.name(checkpointId);
    host.dispatch({ type: "CheckpointSaved", checkpointId, stage, step, resume: request.resume });
    // A restart reads the checkpoint that the journal names: the older ones go only once it names this one.
    await host.settled();
    // Replaced meanwhile: the journal still names one of the older ones.
    signal.throwIfAborted();
    await this.prune(stage);
    const bytes = files.reduce((total, file) => total + file.sizeBytes, 0);
    const elapsedMs = performance.now() - startedMs;
    metrics.checkpointDuration.observe(elapsedMs / 1000);
    bus.publish({
      type: "checkpoint",
      stage,
      completedUnits: request.completedUnits,
      path: target,
      bytes,
      elapsedMs,
    });
  }

  /** Lets `latest` name the checkpoint. */
  private async name(checkpointId: string): Promise<void> {
    await replaceSynced(join(this.folder, "latest"), checkpointId);
  }

  /** The training state of a checkpoint of this run, verified. */
  async stateOf(checkpointId: string): Promise<ArtifactRef__Output> {
    const folder = join(this.folder, checkpointId);
    const { files } = await verify(folder, { runId: this.options.runId, checkpointId });
    if (!files.some(({ name }) => name === STATE_FILE))
      throw dataError(`checkpoint ${folder}: its manifest names no ${STATE_FILE}; ${RESTORE}`);
    return this.options.artifacts.adopt(`checkpoint/${checkpointId}/resumed`, join(folder, STATE_FILE));
  }

  /** What is neither among the newest, nor named by the journal, nor one of every so many. */
  private async prune(stage: string): Promise<void> {
    await this.clean();
    const { keepLast, host } = this.options;
    const named = new Set(keptCheckpoints(host.state.durable).map(({ checkpointId }) => checkpointId));
    const ours = (await readdir(this.folder)).filter((name) => name.startsWith(`${stage}-`)).sort();
    for (const name of ours.slice(0, -keepLast)) {
      const folder = join(this.folder, name);
      if (named.has(name) || (await this.isOneOfEvery(folder))) continue;
      await rm(folder, { recursive: true, force: true });
      await this.options.files.drop(folder);
    }
  }

  private async isOneOfEvery(folder: string): Promise<boolean> {
    const { keepEvery } = this.options;
    if (keepEvery === 0) return false;
    try {
      const { completedUnits } = await readManifest(folder);
      return completedUnits % keepEvery === 0;
    } catch {
      return true; // damaged: what it was after cannot be told, and nothing that is not understood is deleted
    }
  }
}

async function readManifest(folder: string): Promise<Manifest> {
  return manifestSchema.parse(JSON.parse(await readFile(join(folder, "manifest.json"), "utf8")));
}

/**
 * Reads every byte of a checkpoint.
 * @throws {TroupeError} DATA when the manifest is missing, damaged or that of another checkpoint; DATA naming the first
 *   file that is missing or changed
 */
export async function verify(
  folder: string,
  expected: Partial<Pick<Manifest, "runId" | "checkpointId">> = {},
): Promise<Manifest> {
  const unusable = (why: string, cause?: unknown) =>
    dataError(`checkpoint ${folder}: ${why}; ${RESTORE}`, { cause });
  let manifest: Manifest;
  try {
    manifest = await readManifest(folder);
  } catch (cause) {
    throw unusable("manifest.json is missing or damaged", cause);
  }
  for (const key of ["runId", "checkpointId"] as const) {
    if (expected[key] !== undefined && manifest[key] !== expected[key])
      throw unusable(`its manifest is that of ${manifest[key]}, expected ${expected[key]}`);
  }
  for (const { name, sha256 } of manifest.files) {
    const found = await digestOfFile(join(folder, name)).catch(() => undefined);
    if (found === undefined) throw unusable(`${name} is missing`);
    if (found.sha256 !== sha256) throw unusable(`${name} does not match its sha256`);
  }
  return manifest;
}
