/**
 * A process that is killed at its n-th change of the file system, for `vi.mock("node:fs/promises")`: that change and
 * all later ones fail, what was written without being synced is left half as after a power cut, and what was not begun
 * is not there. Reading goes on.
 */
import { existsSync, statSync, truncateSync } from "node:fs";
import type * as promises from "node:fs/promises";

const CHANGES = ["copyFile", "mkdir", "rename", "rm", "writeFile"] as const;

let left = Infinity;
const unsynced = new Set<string>();

/** The n-th change from now on is the last thing that is tried. */
export function dieAtChange(n: number): void {
  left = n;
  unsynced.clear();
}

/** The next process. @returns whether the one before was killed */
export function liveAgain(): boolean {
  const wasKilled = left <= 0;
  left = Infinity;
  return wasKilled;
}

function step(): void {
  if (--left > 0) return;
  if (left === 0)
    for (const path of unsynced) if (existsSync(path)) truncateSync(path, statSync(path).size >> 1);
  throw new Error("killed");
}

export function dyingFileSystem(real: typeof promises): typeof promises {
  const changes = Object.fromEntries(
    CHANGES.map((name) => [
      name,
      async (...args: unknown[]) => {
        step();
        const result = await (real[name] as (...args: unknown[]) => Promise<unknown>)(...args);
        const written = name === "copyFile" ? args[1] : name === "writeFile" ? args[0] : undefined;
        if (written !== undefined) unsynced.add(written as string);
        return result;
      },
    ]),
  );
  const open: typeof real.open = async (path, flags, mode) => {
    if (flags !== "r") step();
    const file = await real.open(path, flags, mode);
    const { writeFile } = file;
    file.writeFile = async (...args) => {
      step();
      unsynced.add(path as string);
      return writeFile.apply(file, args);
    };
    file.sync = () => {
      step(); // what it is for is played here, and the disk's part takes its time
      unsynced.delete(path as string);
      return Promise.resolve();
    };
    return file;
  };
  return { ...real, ...changes, open };
}
