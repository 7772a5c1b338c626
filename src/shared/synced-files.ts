/** What survives a power cut: a file whose bytes were synced, under a name whose folder was. */
import { open, rename } from "node:fs/promises";

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
}

/** What was created, renamed or deleted in the folder stays so. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
