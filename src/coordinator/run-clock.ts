/**
 * How long coordinators have directed a run: the sum over all of its coordinator processes, without the time between
 * them. Kept in DIR/results/seconds.json, because the next process starts its own clock at 0.
 */
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Logger } from "../observability/logger.js";
import { dataError } from "../shared/errors.js";
import { makeSyncedFolder, replaceSynced } from "../shared/synced-files.js";
import { FILES_ON_DISK, type DurableFiles } from "./journal/durable-files.js";

/** A coordinator that is killed loses at most this much of its time. */
const SAVE_MS = 5_000;

export interface RunClockOptions {
  readonly runDir: string;
  readonly logger: Logger;
  readonly files?: DurableFiles;
  /** Monotonic milliseconds. @default performance.now */
  readonly now?: () => number;
  /** @default 5_000 */
  readonly saveEveryMs?: number;
}

export class RunClock {
  private readonly startedMs: number;
  private readonly timer: NodeJS.Timeout;
  private saving: Promise<void> = Promise.resolve();
  private hasFailed = false;

  private constructor(
    private readonly path: string,
    private readonly earlierSeconds: number,
    private readonly options: Required<RunClockOptions>,
  ) {
    this.startedMs = options.now();
    this.timer = setInterval(() => void this.save(), options.saveEveryMs);
    this.timer.unref();
  }

  /** Starts this process's share. @throws {TroupeError} DATA when the file of the earlier ones cannot be used */
  static async open(options: RunClockOptions): Promise<RunClock> {
    const path = join(options.runDir, "results", "seconds.json");
    const earlier = await readSeconds(path);
    await makeSyncedFolder(dirname(path));
    return new RunClock(path, earlier, {
      now: () => performance.now(),
      saveEveryMs: SAVE_MS,
      files: FILES_ON_DISK,
      ...options,
    });
  }

  /** Of all coordinator processes until now. */
  get seconds(): number {
    return this.earlierSeconds + (this.options.now() - this.startedMs) / 1000;
  }

  /** Writes the last share. */
  async close(): Promise<void> {
    clearInterval(this.timer);
    await this.save();
  }

  /** Stops without a word: the run, and with it the file, is another coordinator's. */
  async abandon(): Promise<void> {
    clearInterval(this.timer);
    await this.saving;
  }

  private save(): Promise<void> {
    this.saving = this.saving.then(() => this.write());
    return this.saving;
  }

  /** A time that cannot be written is no reason to end a run. */
  private async write(): Promise<void> {
    const partial = `${this.path}.${process.pid}.tmp`;
    try {
      await replaceSynced(this.path, JSON.stringify(this.seconds), partial);
      await this.options.files.keep(this.path);
      this.hasFailed = false;
    } catch (error) {
      if (!this.hasFailed) this.options.logger.warn({ err: error }, `${this.path} could not be written`);
      this.hasFailed = true;
    }
  }
}

/** 0 for a run that begins. */
async function readSeconds(path: string): Promise<number> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return 0;
    throw dataError(`${path} cannot be read: ${(cause as Error).message}`, { cause });
  }
  const seconds = Number(text.trim() === "" ? NaN : text);
  if (Number.isFinite(seconds) && seconds >= 0) return seconds;
  throw dataError(
    `${path}: expected a number of seconds, got ${JSON.stringify(text.slice(0, 40))}; remove the file to count from 0`,
  );
}
