/** The memory of this machine's NVIDIA GPUs. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";

const TIMEOUT_MS = 10_000;

/** Of the smallest GPU; null where nvidia-smi does not tell. */
export async function deviceMemoryBytes(): Promise<number | null> {
  try {
    const { stdout } = await promisify(execFile)(
      "nvidia-smi",
      ["--query-gpu=memory.total", "--format=csv,noheader,nounits"],
      { timeout: TIMEOUT_MS },
    );
    return smallestOf(stdout);
  } catch {
    return null;
  }
}

/** @param text MiB of each GPU, one a line */
export function smallestOf(text: string): number | null {
  const sizes = text
    .split("\n")
    .map(Number)
    .filter((mib) => mib > 0);
  return sizes.length === 0 ? null : Math.min(...sizes) * 2 ** 20;
}
