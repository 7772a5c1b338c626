/**
 * What a run has found out and would not compute again, as JSON files under DIR/results: evaluations, outcomes of
 * stages, the proximal policy. After a restart the stored value is used.
 */
import { readFile, readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { dataError } from "../shared/errors.js";
import { makeSyncedFolder, replaceSynced } from "../shared/synced-files.js";
import type { DurableFiles } from "./journal/durable-files.js";

const SUFFIX = ".json";

export class RunResults {
  private readonly folder: string;

  constructor(
    runDir: string,
    private readonly files: DurableFiles,
  ) {
    this.folder = join(runDir, "results");
  }

  /** What `remember` stored under the name, if it did. @throws {TroupeError} DATA when it cannot be read */
  async recall<T>(name: string): Promise<T | undefined> {
    const path = this.pathOf(name);
    try {
      return JSON.parse(await readFile(path, "utf8")) as T;
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw dataError(`${path}: cannot be read; remove it to have it computed again`, { cause });
    }
  }

  /** A value computed once per run directory. */
  async remember<T>(name: string, compute: () => Promise<T>): Promise<T> {
    const known = await this.recall<T>(name);
    if (known !== undefined) return known;
    const path = this.pathOf(name);
    const value = await compute();
    await makeSyncedFolder(dirname(path));
    await replaceSynced(path, JSON.stringify(value));
    await this.files.keep(path);
    return value;
  }

  /** Names in a folder of results, without the folder. */
  async namesIn(folder: string): Promise<string[]> {
    const names = await readdir(join(this.folder, folder)).catch(() => []);
    return names.filter((name) => name.endsWith(SUFFIX)).map((name) => name.slice(0, -SUFFIX.length));
  }

  async forget(name: string): Promise<void> {
    await this.remove(this.pathOf(name));
  }

  async forgetFolder(folder: string): Promise<void> {
    await this.remove(join(this.folder, folder));
  }

  private async remove(path: string): Promise<void> {
    await rm(path, { recursive: true, force: true });
    await this.files.drop(path);
  }

  private pathOf(name: string): string {
    return join(this.folder, `${name}${SUFFIX}`);
  }
}
