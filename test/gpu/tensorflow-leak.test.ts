import { execFile, execFileSync } from "node:child_process";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { packageRoot } from "../../src/shared/paths.js";
import { missing } from "./native-library.js";

const WARM_UP = 200;
const STEPS = 1000;
/** Allocators' noise: ±5 MiB over 4,000 steps. A leaked copy of the gradients in each of 800 steps is 83 MiB. */
const RSS_SLACK_BYTES = 24 * 2 ** 20;
const TIMEOUT_MS = 600_000;

/** A line of training-steps.mjs. */
interface Sample {
  readonly loss: number | null;
  readonly numTensors: number;
  readonly numDataBuffers: number;
  readonly rss: number;
}

describe("tensorflow", () => {
  if (missing !== null) {
    it.skip(`trains without leaks (skipped: ${missing})`, () => {});
    return;
  }

  it(
    `owns as many tensors, and as much memory, after ${STEPS} steps as after ${WARM_UP}`,
    async () => {
      execFileSync(process.execPath, ["scripts/build.mjs"], { cwd: packageRoot });
      const args = ["--expose-gc", "test/gpu/training-steps.mjs", String(WARM_UP), String(STEPS)];
      const options = { cwd: packageRoot, timeout: TIMEOUT_MS - 30_000 };
      const { stdout } = await promisify(execFile)(process.execPath, args, options);
      const samples = stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Sample);
      const [start, warm, last, end] = samples;

      expect(last.loss!).toBeLessThan(warm.loss!); // it did train
      expect(warm.numTensors).toBe(start.numTensors);
      expect(last.numTensors).toBe(start.numTensors);
      expect(last.numDataBuffers).toBe(start.numDataBuffers);
      expect(last.rss - warm.rss).toBeLessThan(RSS_SLACK_BYTES);
      expect(end.numTensors).toBe(0);
    },
    TIMEOUT_MS,
  );
});
