/**
 * A process whose machine loses power at its n-th change of the file system, for `vi.mock("node:fs/promises")`: that
 * change and all later ones fail, and what was not synced is lost, as badly as POSIX allows. Of a file, half of its
 * bytes; of a folder, every name that was created in it or moved into it since it was synced, while names that were
 * deleted stay so. Reading goes on.
 */
import { existsSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import type * as promises from "node:fs/promises";
import { dirname, resolve, sep } from "node:path";

/** A name in a folder that was not synced since. */
interface NewName {
  path: string;
  /** Where it was moved from, else it was created. */
  readonly from?: string;
  /** The file that had the name. */
  readonly replaced?: Buffer;
}

let left = Infinity;
let losesNames = true;
const unsynced = new Set<string>();
/** Oldest first. */
let names: NewName[] = [];

/**
 * The n-th change from now on is the last thing that is tried.
 * @param options losesNames: false for a disk that happened to have all names already
 */
export function dieAtChange(n: number, options = { losesNames: true }): void {
  left = n;
  losesNames = options.losesNames;
  unsynced.clear();
  names = [];
}

/** Now, between two changes: what was done since `dieAtChange` and not synced is lost. */
export function losePower(): void {
  left = 0;
  loseUnsynced();
}

/** The next process. @returns whether the one before was killed */
export function liveAgain(): boolean {
  const wasKilled = left <= 0;
  left = Infinity;
  return wasKilled;
}

function step(): void {
  if (--left > 0) return;
  if (left === 0) loseUnsynced();
  throw new Error("killed");
}

function loseUnsynced(): void {
  for (const path of unsynced) if (existsSync(path)) truncateSync(path, statSync(path).size >> 1);
  if (!losesNames) names = [];
  for (let name = names.pop(); name !== undefined; name = names.pop()) {
    const { path, from, replaced } = name;
    if (from === undefined) rmSync(path, { recursive: true, force: true });
    else {
      renameSync(path, from);
      for (const older of names) older.path = moved(older.path, path, from);
    }
    if (replaced !== undefined) writeFileSync(path, replaced);
  }
  unsynced.clear();
}

const isIn = (path: string, folder: string): boolean => path === folder || path.startsWith(folder + sep);
const moved = (path: string, from: string, to: string): string =>
  isIn(path, from) ? to + path.slice(from.length) : path;

const note = (path: string): void => void names.push({ path });

/** Notes the outcome of a change that succeeded. @param before what `prepared` returned */
const NOTES = {
  copyFile: ([, to]: string[], { isNew }: Before) => noteWritten(to, isNew),
  writeFile: ([path]: string[], { isNew }: Before) => noteWritten(path, isNew),
  mkdir: (_: string[], { missing }: Before) => missing.forEach(note),
  rename: ([from, to]: string[], { replaced }: Before) => {
    const moving = [...unsynced].filter((path) => isIn(path, from));
    for (const path of moving) unsynced.delete(path);
    for (const path of moving) unsynced.add(moved(path, from, to));
    for (const name of names) name.path = moved(name.path, from, to);
    names.push({ path: to, from, replaced });
  },
  rm: ([path]: string[]) => {
    for (const file of unsynced) if (isIn(file, path)) unsynced.delete(file);
    names = names.filter((name) => !isIn(name.path, path));
  },
};

interface Before {
  readonly isNew: boolean;
  /** Folders that are not there yet, the highest first. */
  readonly missing: readonly string[];
  readonly replaced: Buffer | undefined;
}

function prepared(name: keyof typeof NOTES, paths: readonly string[]): Before {
  const target = name === "copyFile" || name === "rename" ? paths[1] : paths[0];
  const missing: string[] = [];
  for (let folder = target; !existsSync(folder); folder = dirname(folder)) missing.unshift(folder);
  const isFile = missing.length === 0 && statSync(target).isFile();
  return {
    isNew: missing.length > 0,
    missing,
    replaced: name === "rename" && isFile ? readFileSync(target) : undefined,
  };
}

function noteWritten(path: string, isNew: boolean): void {
  if (isNew) note(path);
  unsynced.add(path);
}

export function dyingFileSystem(real: typeof promises): typeof promises {
  const changes = Object.fromEntries(
    (Object.keys(NOTES) as (keyof typeof NOTES)[]).map((name) => [
      name,
      async (...args: unknown[]) => {
        step();
        const paths = args.filter((arg) => typeof arg === "string").map((path) => resolve(path));
        const before = prepared(name, paths);
        const result = await (real[name] as (...args: unknown[]) => Promise<unknown>)(...args);
        NOTES[name](paths, before);
        return result;
      },
    ]),
  );
  const open: typeof real.open = async (name, flags, mode) => {
    const path = resolve(name as string);
    if (flags !== "r") step();
    const isNew = flags !== "r" && !existsSync(path);
    const file = await real.open(path, flags, mode);
    if (isNew) note(path);
    for (const method of ["write", "writeFile"] as const) {
      const write = file[method].bind(file) as (...args: unknown[]) => Promise<unknown>;
      const dying = (...args: unknown[]) => {
        step();
        unsynced.add(path);
        return write(...args);
      };
      Object.assign(file, { [method]: dying });
    }
    file.sync = () => {
      step(); // what it is for is played here, and the disk's part takes its time
      unsynced.delete(path);
      names = names.filter((entry) => dirname(entry.path) !== path);
      return Promise.resolve();
    };
    return file;
  };
  return { ...real, ...changes, open };
}
