/** What `troupe run` and `troupe quickstart` share: take the directory, launch, show the results. */
import { existsSync } from "node:fs";
import type { LoadedConfig } from "../config/load.js";
import { dataError, describeError, errorCodeOf, TroupeError } from "../shared/errors.js";
import { launch } from "./launch.js";
import { ProgressView } from "./progress-view.js";
import type { RestartPolicy } from "./restart-budget.js";
import { openRunDirectory, type RunDirectory } from "./run-directory.js";
import { readEvalSamples, readSummary, writeSummary, type EvalSample, type Summary } from "./summary.js";
import { printSummary } from "./summary-view.js";
import type { TextStream } from "./terminal.js";

export interface PerformRunOptions {
  readonly loaded: LoadedConfig;
  readonly runDir: string;
  readonly resume?: "auto";
  readonly allowDrift?: boolean;
  readonly gpus?: readonly number[];
  readonly policy?: Partial<RestartPolicy>;
  readonly signal: AbortSignal;
  readonly stream: TextStream;
  /** Makes what the run needs inside its directory, e.g. a generated data set. */
  readonly prepare?: (directory: RunDirectory) => Promise<void>;
  /** Adds what only this side can measure; the result replaces summary.json. */
  readonly complete?: (summary: Summary, samples: readonly EvalSample[]) => Promise<Summary>;
}

export async function performRun(options: PerformRunOptions): Promise<void> {
  const { loaded, signal, stream } = options;
  const { config, warnings } = loaded;
  const view = new ProgressView({ stream });
  for (const warning of warnings) view.note(`note: ${warning}`);
  const directory = await openRunDirectory(options.runDir, {
    config,
    resume: options.resume,
    allowDrift: options.allowDrift,
  });
  try {
    await options.prepare?.(directory);
    if (!existsSync(config.data.path)) {
      throw dataError(`data.path ${config.data.path} does not exist; expected a JSONL file (.gz allowed)`);
    }
    await launch({ config, directory, gpus: options.gpus, policy: options.policy, view, signal }).catch(
      (error: unknown) => {
        if (errorCodeOf(error) !== "CANCELLED") throw error;
        throw new TroupeError(
          "CANCELLED",
          `${describeError(error)}; continue with --run-dir ${options.runDir} --resume auto`,
        );
      },
    );
    let summary = await readSummary(directory.path);
    if (summary === undefined) return;
    const samples = await readEvalSamples(directory.path);
    if (options.complete !== undefined) {
      summary = await options.complete(summary, samples);
      await writeSummary(directory.path, summary);
    }
    printSummary({ summary, samples, sampleCount: config.eval.samples, stream, cwd: process.cwd() });
  } finally {
    await directory.release();
  }
}
