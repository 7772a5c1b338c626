/** `DIR/coordinator.json`: how workers and tools find the coordinator of a run. */
import { readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";

const coordinatorFileSchema = z.looseObject({
  pid: z.int().min(1),
  /** host:port; one that listens on all addresses is reached, and known by its certificate, on this one */
  grpcAddress: z
    .string()
    .regex(/:\d+$/)
    .transform((address) => address.replace(/^(0\.0\.0\.0|\[?::\]?):/, "127.0.0.1:")),
  /** host:port or a URL */
  httpAddress: z.string(),
  runId: z.string(),
});

export type CoordinatorFile = z.infer<typeof coordinatorFileSchema>;

export const coordinatorFilePath = (runDir: string): string => join(runDir, "coordinator.json");

/** Undefined while there is no complete file. */
export async function readCoordinatorFile(runDir: string): Promise<CoordinatorFile | undefined> {
  try {
    return coordinatorFileSchema.parse(JSON.parse(await readFile(coordinatorFilePath(runDir), "utf8")));
  } catch {
    return undefined;
  }
}

/** Readers find the old file or the new one, never a part. */
export async function writeCoordinatorFile(runDir: string, facts: CoordinatorFile): Promise<void> {
  const path = coordinatorFilePath(runDir);
  await writeFile(`${path}.tmp`, JSON.stringify(facts, null, 2) + "\n");
  await rename(`${path}.tmp`, path);
}
