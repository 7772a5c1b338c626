/** What survives a power cut: a file whose bytes were synced, under a name whose folder was. */
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";

/** The file holds the text on disk; its name may still be lost, see `syncFolder`. */
export async function writeSynced(path: string, text: string): Promise<void> {
  const file = await open(path, "w");
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Readers find the old text or the new one, never a part. @param partial where it is written first, in the same folder */
export async function replaceSynced(path: string, text: string, partial = `${path}.tmp`): Promise<void> {
  await writeSynced(partial, text);
  await rename(partial, path);
  await syncFolder(dirname(path));
}

/** What was created, renamed or deleted in the folder stays so. */
export const syncFolder = (path: string): Promise<void> => sync(path);

/** Makes the folder, and those above it that are missing, to stay. */
export async function makeSyncedFolder(path: string): Promise<void> {
  const highest = await mkdir(path, { recursive: true });
  if (highest === undefined) return;
  for (let made = resolve(path); ; made = dirname(made)) {
    await syncFolder(dirname(made));
    if (made === resolve(highest)) return;
  }
}

/**
 * Gives a folder of files its final name, to stay, in place of what has that name: until this returns there may be
 * neither, after it there is all of the new one.
 * @param partial holds files only; beside `target`
 */
export async function placeSynced(partial: string, target: string): Promise<void> {
  for (const name of await readdir(partial)) await sync(join(partial, name));
  await syncFolder(partial);
  await rm(target, { recursive: true, force: true });
  await rename(partial, target);
  await syncFolder(dirname(target));
}

/** Opened for reading: what was copied may be read-only. */
async function sync(path: string): Promise<void> {
  const opened = await open(path, "r");
  try {
    await opened.sync();
  } finally {
    await opened.close();
  }
}
