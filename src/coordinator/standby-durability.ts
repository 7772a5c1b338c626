/** Opens what must outlive a coordinator, where `cluster.durable` says it is kept. */
import { hostname } from "node:os";
import { createHash, randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { refuseDrift } from "../config/drift.js";
import type { Config } from "../config/schema.js";
import { createLogger } from "../observability/logger.js";
import { configError, dataError, describeError, storageError } from "../shared/errors.js";
import { makeSyncedFolder, replaceSynced } from "../shared/synced-files.js";
import { checkStaleness } from "./collect-ahead.js";
import type { DurableState } from "./core/index.js";
import { FILES_ON_DISK, type DurableFiles } from "./journal/durable-files.js";
import { openLevelLog, type DurableLog } from "./journal/index.js";
import type { NatsOptions } from "./journal/nats-connection.js";
import type { Leadership } from "./standby.js";

export interface DurabilityOptions {
  readonly config: Config;
  readonly runDir: string;
  /** Wait until the coordinator that leads is gone, then go on with its run. */
  readonly standby: boolean;
  /** Go on with a run that exists: the one in the directory, or with NATS one that another directory began. */
  readonly mayContinue: boolean;
  /** Go on although settings that change results differ. */
  readonly allowDrift: boolean;
  readonly signal: AbortSignal;
}

export interface Durability {
  readonly log: DurableLog;
  /** What the log says, checked against the configuration. */
  readonly recovered: DurableState;
  readonly files: DurableFiles;
  readonly runId: string;
  /** Undefined for a journal that only this machine has. */
  readonly leadership: Leadership | undefined;
}

/**
 * Returns once this process directs the run; before that it touches nothing in the run directory.
 * @returns undefined when the run ended well while this process stood by
 * @throws {TroupeError} RUN_DIR_IN_USE, STORAGE, CONFIG, UNREACHABLE, CANCELLED, or what the run ended with meanwhile
 */
export async function openDurability(options: DurabilityOptions): Promise<Durability | undefined> {
  const { config, runDir, standby, signal } = options;
  const { durable } = config.cluster;
  // To stderr only: until it leads, the directory belongs to somebody else.
  const logger = createLogger({ role: "coordinator" });
  const onCompactionFailed = (err: unknown) =>
    logger.warn({ err }, "the journal could not be folded into a snapshot; it grows until that works");
  if (durable.type === "local") {
    if (standby)
      throw configError("--standby needs a journal that several machines reach: set cluster.durable to nats");
    await makeSyncedFolder(runDir);
    const log = await openLevelLog(join(runDir, "journal"), { onCompactionFailed });
    const recovered = await recover(log, runDir, options);
    try {
      if (holdsRun(recovered) && !options.mayContinue)
        throw configError(
          `run directory ${runDir} holds a run already; continue it with --resume auto, or name another --run-dir`,
        );
      const runId = await runIdOf(runDir, config);
      return { log, recovered, files: FILES_ON_DISK, runId, leadership: undefined };
    } catch (error) {
      await log.close();
      throw error;
    }
  }

  const nats: NatsOptions = { ...durable, run: natsRunOf(config.name, durable.run) };
  const [{ takeLead }, { openNatsLog }] = await Promise.all([
    import("./standby.js"),
    import("./journal/nats-log.js"),
  ]);
  const leadership = await takeLead({
    nats,
    leaseTtlMs: durable.leaseTtlMs,
    name: config.name,
    knownRunId: await readRunId(runDir),
    standby,
    mayContinue: options.mayContinue,
    logger,
    signal,
  });
  if (leadership === undefined) return undefined;
  const { connection, runId } = leadership;
  try {
    await makeSyncedFolder(runDir);
    await replaceSynced(runIdFile(runDir), runId + "\n");
    const owner = `${hostname()} ${process.pid}`;
    const log = await openNatsLog(connection, { ...nats, owner, onCompactionFailed });
    const recovered = await recover(log, `NATS under ${nats.run}`, options);
    if (durable.files === "disk") return { log, recovered, files: FILES_ON_DISK, runId, leadership };
    const { openNatsFiles } = await import("./journal/nats-files.js");
    const files = await openNatsFiles(connection, { ...nats, owner, runDir });
    const startedMs = performance.now();
    const restored = await files.restore();
    if (restored.files > 0)
      logger.info(
        { ...restored, ms: Math.round(performance.now() - startedMs) },
        "the run's files were brought from NATS",
      );
    return { log, recovered, files, runId, leadership };
  } catch (error) {
    // What this machine cannot do, another may: those who stand by are told nothing.
    await leadership.resign(undefined);
    throw error;
  }
}

/** Is there anything to go on with? A coordinator that found its port taken leaves an epoch and nothing else. */
const holdsRun = ({ stage, finishedStages }: DurableState): boolean =>
  stage !== null || finishedStages.length > 0;

/** May a coordinator before this one still hold the ports that this one listens on? */
export const followsAnother = (
  { mayContinue, standby }: Pick<DurabilityOptions, "mayContinue" | "standby">,
  recovered: DurableState,
): boolean => mayContinue || standby || holdsRun(recovered);

/** Names the streams of a run. */
export const natsRunOf = (name: string, run: string | null): string => run ?? name.replaceAll(".", "-");

async function recover(
  log: DurableLog,
  where: string,
  { config, allowDrift }: DurabilityOptions,
): Promise<DurableState> {
  try {
    const recovered = await log.recover();
    checkStaleness(recovered, config.ppo.staleness);
    if (recovered.config !== null && holdsRun(recovered) && !allowDrift)
      refuseDrift(recovered.config, config, where);
    return recovered;
  } catch (error) {
    await log.close();
    throw error;
  }
}

const runIdFile = (runDir: string): string => join(runDir, "run-id");

/** @returns undefined when there is none yet @throws {TroupeError} STORAGE, DATA when it cannot be used */
async function readRunId(runDir: string): Promise<string | undefined> {
  const path = runIdFile(runDir);
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw storageError(`${path} cannot be read: ${describeError(cause)}`, { cause });
  }
  if (text.trim() !== "") return text.trim();
  // Another id would turn every checkpoint into one of another run.
  throw dataError(
    `${path}: expected the id of the run, got an empty file; write into it what a manifest.json under checkpoints/ has as runId, or remove it when there is none`,
  );
}

/** One name for the life of the run directory. */
async function runIdOf(runDir: string, config: Config): Promise<string> {
  const known = await readRunId(runDir);
  if (known !== undefined) return known;
  const digest = createHash("sha256").update(randomBytes(16)).digest("hex").slice(0, 8);
  const runId = `${config.name}-${digest}`;
  await replaceSynced(runIdFile(runDir), runId + "\n");
  return runId;
}
