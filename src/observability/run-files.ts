/**
 * The machine-readable trail of a run, written from its events:
 *
 *   DIR/metrics.jsonl                           one line per step or iteration, and per finished stage
 *   DIR/tensorboard/events.out.tfevents.*       the same numbers as scalars
 *
 * Names are the record's own; outside ppo they get the stage in front (`sft/loss`), because `ppo` uses TRL's names
 * as they are (`objective/kl`), so existing TensorBoard layouts fit. A resumed run appends: of two lines with the
 * same stage and unit the later one counts.
 */
import { hostname } from "node:os";
import { join } from "node:path";
import { openAppendFile } from "./append-file.js";
import type { EventBus, MetricsRecord, ProgressStage, PublishedEvent } from "./progress.js";
import { encodeFileVersion, encodeRecord, encodeScalars } from "./tensorboard.js";

export interface RunFiles {
  readonly metricsPath: string;
  readonly tensorboardPath: string;
  /** Everything published so far is on disk. @throws {TroupeError} STORAGE */
  flush(): Promise<void>;
  /** Stops listening, flushes, closes. Idempotent. @throws {TroupeError} STORAGE */
  close(): Promise<void>;
}

export interface RunFilesOptions {
  readonly bus: EventBus;
  /** The run directory. */
  readonly dir: string;
  /** Wall clock for the event file's name, Unix ms. @default Date.now */
  readonly now?: () => number;
}

/**
 * Starts writing, remembered events of the bus first.
 * @throws {TroupeError} STORAGE when a file cannot be made
 */
export async function startRunFiles(options: RunFilesOptions): Promise<RunFiles> {
  const startMs = (options.now ?? Date.now)();
  const eventFileName = `events.out.tfevents.${Math.floor(startMs / 1000)}.${hostname()}.${process.pid}.troupe`;
  const metrics = await openAppendFile(join(options.dir, "metrics.jsonl"), { endTornLine: true });
  const tensorboard = await openAppendFile(join(options.dir, "tensorboard", eventFileName));
  tensorboard.append(encodeRecord(encodeFileVersion(startMs / 1000)));

  const onEvent = (event: PublishedEvent) => {
    const row = rowOf(event);
    if (row === undefined) return;
    metrics.append(`${JSON.stringify(jsonLine(event, row))}\n`);
    const scalars = scalarsOf(row);
    if (Object.keys(scalars).length > 0) {
      tensorboard.append(encodeRecord(encodeScalars(event.timeMs / 1000, row.unit, scalars)));
    }
  };
  const unsubscribe = options.bus.subscribe(onEvent, { after: 0 });

  return {
    metricsPath: metrics.path,
    tensorboardPath: tensorboard.path,
    flush: async () => void (await Promise.all([metrics.flush(), tensorboard.flush()])),
    close: async () => {
      unsubscribe();
      await Promise.all([metrics.close(), tensorboard.close()]);
    },
  };
}

interface Row {
  readonly kind: "progress" | "stage";
  readonly stage: ProgressStage;
  /** Finished units; 0 for a stage's final numbers. */
  readonly unit: number;
  readonly metrics: MetricsRecord;
}

function rowOf(event: PublishedEvent): Row | undefined {
  if (event.type === "progress") {
    return { kind: "progress", stage: event.stage, unit: event.completedUnits, metrics: event.metrics };
  }
  if (event.type === "stage-finished") {
    return { kind: "stage", stage: event.stage, unit: 0, metrics: event.metrics };
  }
  return undefined;
}

/** JSON has no NaN or infinity: they are written as the strings "NaN", "Infinity", "-Infinity", not lost as null. */
function jsonLine(event: PublishedEvent, row: Row): Record<string, unknown> {
  const numbers = Object.entries(row.metrics).map(([name, value]) => [
    name,
    Number.isFinite(value) ? value : String(value),
  ]);
  return {
    time: new Date(event.timeMs).toISOString(),
    kind: row.kind,
    stage: row.stage,
    ...(row.kind === "progress" ? { unit: row.unit } : {}),
    metrics: Object.fromEntries(numbers) as Record<string, number | string>,
  };
}

function scalarsOf(row: Row): Record<string, number> {
  const prefix = row.kind === "stage" ? `final/${row.stage}/` : row.stage === "ppo" ? "" : `${row.stage}/`;
  return Object.fromEntries(Object.entries(row.metrics).map(([name, value]) => [`${prefix}${name}`, value]));
}
