/**
 * One measurement: a real coordinator process with its journal, services and tokens; workers whose sessions, streams
 * and codecs are real and whose numbers are constants; loopback between them.
 */
import { fork, type ChildProcess } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { JoinTokens } from "../rpc/auth.js";
import { sleep } from "../shared/abort.js";
import { TroupeError } from "../shared/errors.js";
import { builtFile } from "../shared/paths.js";
import { CoordinatorProcess } from "./coordinator-process.js";
import type { CrowdOptions } from "./crowd.js";
import type { CrowdReport } from "./crowd-main.js";
import { HeartbeatProbe } from "./heartbeat-probe.js";
import { writeLoadInput } from "./load-input.js";
import type { LoadOptions } from "./load-options.js";
import { quantile } from "./quantile.js";

export interface LoadResult {
  readonly options: LoadOptions;
  readonly seconds: number;
  readonly experiences: number;
  /** Over all of the time, and while experiences were being collected. */
  readonly experiencesPerSecond: number;
  readonly collectPerSecond: number;
  readonly megabytesPerSecond: number;
  readonly steps: number;
  /** Of the coordinator's process, all threads. */
  readonly coordinatorCores: number;
  readonly cpuMicrosPerExperience: number;
  readonly crowdCores: number;
  /** Round trips of the probe, milliseconds. */
  readonly heartbeatMs: { readonly p50: number; readonly p99: number; readonly max: number };
  /** Round trips that the playing processes saw themselves; their own queues are in them. */
  readonly crowdHeartbeatMs: { readonly p50: number; readonly p99: number };
  /** How much later than due the coordinator's loop got to a timer; p99 and p50: the worst of any 10 s. */
  readonly loopLagMs: { readonly p50: number; readonly p99: number; readonly max: number };
  readonly residentMb: readonly number[];
  readonly journalMb: number;
  readonly journalMbPerSecond: number;
  readonly bufferBytesMax: number;
  /** Experiences that had arrived and were not on disk yet. */
  readonly intakeBytesMax: number;
  /** Refused: not asked for, or come twice. */
  readonly rejected: number;
  /** Times that a worker found no coordinator for a minute and started again. */
  readonly gaveUp: number;
  readonly joinSeconds: number;
  /** Of the coordinator, from the first worker's join to the last one's. */
  readonly cpuMillisPerJoin: number;
  /** Answered in the measured time; with nothing else to do, what one costs the coordinator. */
  readonly heartbeats: number;
  readonly cpuMicrosPerHeartbeat: number;
  readonly secondsByPhase: Readonly<Record<string, number>>;
}

export interface MeasureHooks {
  readonly onNote?: (text: string) => void;
  readonly nodeFlags?: readonly string[];
  /** Kept, and left behind, when given. */
  readonly runDir?: string;
}

const WORKERS_PER_PROCESS = 1_000;
const PATIENCE_MS = 300_000;
const SAMPLE_MS = 1_000;
/** Workers that have joined are left alone for so long before what they cost is measured. */
const SETTLE_MS = 5_000;
/** Longer than anybody measures. */
const NEVER_MS = 86_400_000;
/** Of prom-client's monitor of the event loop. */
const LOOP_TIMER_MS = 10;

export async function measureLoad(options: LoadOptions, hooks: MeasureHooks = {}): Promise<LoadResult> {
  const folder = await mkdtemp(join(tmpdir(), "troupe-load-"));
  const runDir = hooks.runDir ?? join(folder, "run");
  const input = await writeLoadInput(join(folder, "input"), options);
  const tokens = JoinTokens.read(input.tokenFile);
  const coordinator = await CoordinatorProcess.start(runDir, input, hooks.nodeFlags);
  const crowd = new Crowd();
  let probe: HeartbeatProbe | undefined;
  try {
    const { grpcAddress } = coordinator.file;
    probe = await HeartbeatProbe.start(grpcAddress, tokens.forRole("rollout"));
    const cpuBefore = cpuOf(await coordinator.metrics());
    const startedMs = performance.now();
    crowd.start({
      ...options,
      ...(options.isIdle ? { taskMs: NEVER_MS } : {}),
      coordinator: grpcAddress,
      tokens: { rollout: tokens.forRole("rollout"), learner: tokens.forRole("learner") },
    });
    const workers = options.rollouts + options.learners + options.flooders;
    let joinSeconds = NaN;
    let cpuMillisPerJoin = NaN;
    await until(coordinator, crowd, (series) => {
      if (crowd.joined < workers) return false;
      if (Number.isNaN(joinSeconds)) {
        joinSeconds = (performance.now() - startedMs) / 1000;
        cpuMillisPerJoin = ((cpuOf(series) - cpuBefore) * 1000) / workers;
        hooks.onNote?.(
          `${options.rollouts} rollouts and ${options.learners} learners joined in ${joinSeconds.toFixed(1)} s, ` +
            `${cpuMillisPerJoin.toFixed(2)} ms of the coordinator's CPU each, ${crowd.cpuSeconds.toFixed(1)} s of theirs in all`,
        );
      }
      return options.isIdle || (series.get("troupe_iteration") ?? 0) >= 1;
    });
    if (options.isIdle) await sleep(SETTLE_MS);
    return { ...(await watch(coordinator, crowd, probe, options, hooks)), joinSeconds, cpuMillisPerJoin };
  } finally {
    await probe?.stop();
    crowd.kill();
    await coordinator.stop();
    await rm(folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

async function until(
  coordinator: CoordinatorProcess,
  crowd: Crowd,
  isSo: (series: ReadonlyMap<string, number>) => boolean,
): Promise<void> {
  const deadlineMs = performance.now() + PATIENCE_MS;
  while (!isSo(await coordinator.metrics().catch(() => new Map<string, number>()))) {
    if (!coordinator.isAlive) throw coordinator.death();
    crowd.check();
    if (performance.now() > deadlineMs)
      throw new TroupeError(
        "UNREACHABLE",
        "load: the workers did not get through the first iteration in time",
      );
    await sleep(500);
  }
}

async function watch(
  coordinator: CoordinatorProcess,
  crowd: Crowd,
  probe: HeartbeatProbe,
  options: LoadOptions,
  { onNote }: MeasureHooks,
): Promise<Omit<LoadResult, "joinSeconds" | "cpuMillisPerJoin">> {
  crowd.takeRoundTrips();
  probe.take();
  const before = await coordinator.metrics();
  const journalBefore = await coordinator.journalBytes();
  const crowdCpuBefore = crowd.cpuSeconds;
  const startedMs = performance.now();
  const residentMb: number[] = [];
  const heartbeats: number[] = [];
  let bufferBytesMax = 0;
  let intakeBytesMax = 0;
  const lags = new LoopLags();
  while (performance.now() - startedMs < options.seconds * 1000) {
    await sleep(SAMPLE_MS);
    if (!coordinator.isAlive) throw coordinator.death();
    crowd.check();
    residentMb.push(Math.round((await coordinator.residentBytes()) / 2 ** 20));
    heartbeats.push(...probe.take());
    if (residentMb.length % 10 === 0) {
      const series = await coordinator.metrics();
      lags.add(series);
      bufferBytesMax = Math.max(bufferBytesMax, series.get("troupe_buffer_bytes") ?? 0);
      intakeBytesMax = Math.max(intakeBytesMax, series.get("troupe_intake_bytes") ?? 0);
      onNote?.(
        `${residentMb.length} s: ${residentMb[residentMb.length - 1]} MB resident, ` +
          `${deltaOf(before, series, "troupe_experiences_admitted_total")} experiences, ` +
          `heartbeat p99 ${quantile(heartbeats, 0.99).toFixed(1)} ms`,
      );
    }
  }
  const seconds = (performance.now() - startedMs) / 1000;
  const after = await coordinator.metrics();
  lags.add(after);
  const crowdRoundTrips = crowd.takeRoundTrips();
  const delta = (series: string) => deltaOf(before, after, series);
  const experiences = delta("troupe_experiences_admitted_total");
  const cpuSeconds = delta("process_cpu_seconds_total");
  const phases = ["collect", "update", "publish"];
  const phase = (name: string) => delta(`troupe_iteration_phase_duration_seconds_sum{phase="${name}"}`);
  const journalBytes = await coordinator.journalBytes();
  return {
    options,
    seconds,
    experiences,
    experiencesPerSecond: experiences / seconds,
    collectPerSecond: experiences / phase("collect"),
    megabytesPerSecond: (experiences * options.experienceBytes) / seconds / 1e6,
    steps: delta("troupe_optimizer_step"),
    coordinatorCores: cpuSeconds / seconds,
    cpuMicrosPerExperience: (cpuSeconds / experiences) * 1e6,
    crowdCores: (crowd.cpuSeconds - crowdCpuBefore) / seconds,
    heartbeatMs: {
      p50: quantile(heartbeats, 0.5),
      p99: quantile(heartbeats, 0.99),
      max: quantile(heartbeats, 1),
    },
    crowdHeartbeatMs: { p50: quantile(crowdRoundTrips, 0.5), p99: quantile(crowdRoundTrips, 0.99) },
    loopLagMs: lags.result,
    residentMb,
    journalMb: journalBytes / 1e6,
    journalMbPerSecond: (journalBytes - journalBefore) / 1e6 / seconds,
    bufferBytesMax: Math.max(bufferBytesMax, after.get("troupe_buffer_bytes") ?? 0),
    intakeBytesMax: Math.max(intakeBytesMax, after.get("troupe_intake_bytes") ?? 0),
    gaveUp: crowd.gaveUp,
    rejected:
      sumOf(after, "troupe_experiences_rejected_total") - sumOf(before, "troupe_experiences_rejected_total"),
    heartbeats: heartbeats.length + crowdRoundTrips.length,
    cpuMicrosPerHeartbeat: (cpuSeconds / (heartbeats.length + crowdRoundTrips.length)) * 1e6,
    secondsByPhase: Object.fromEntries(phases.map((name) => [name, phase(name)])),
  };
}

/** The histogram behind the metrics of the loop starts anew with every scrape. */
class LoopLags {
  private readonly worst = { p50: 0, p99: 0, max: 0 };

  add(series: ReadonlyMap<string, number>): void {
    for (const name of ["p50", "p99", "max"] as const) {
      // What is measured is the time between two firings of a timer of that period.
      const lagMs = (series.get(`nodejs_eventloop_lag_${name}_seconds`) ?? NaN) * 1000 - LOOP_TIMER_MS;
      this.worst[name] = Math.max(this.worst[name], lagMs);
    }
  }

  get result(): LoadResult["loopLagMs"] {
    return this.worst;
  }
}

const deltaOf = (
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
  series: string,
): number => (after.get(series) ?? 0) - (before.get(series) ?? 0);

const cpuOf = (series: ReadonlyMap<string, number>): number => series.get("process_cpu_seconds_total") ?? NaN;

const sumOf = (series: ReadonlyMap<string, number>, name: string): number => {
  let sum = 0;
  for (const [key, value] of series) if (key === name || key.startsWith(`${name}{`)) sum += value;
  return sum;
};

/** The processes that play the workers. */
class Crowd {
  private readonly children: ChildProcess[] = [];
  private readonly last: CrowdReport[] = [];
  private roundTrips: number[] = [];
  private failure: string | undefined;

  start(options: Omit<CrowdOptions, "firstRollout" | "firstLearner" | "firstFlooder">): void {
    const count = Math.max(1, Math.ceil((options.rollouts + options.learners) / WORKERS_PER_PROCESS));
    for (let i = 0; i < count; i++) {
      const share = (total: number) =>
        Math.floor((total * (i + 1)) / count) - Math.floor((total * i) / count);
      const child = fork(builtFile("src/load/crowd-main"), { stdio: ["ignore", "ignore", "pipe", "ipc"] });
      this.children.push(child);
      child.stderr!.on("data", (text: Buffer) => process.stderr.write(text));
      child.once("exit", (code) => (this.failure ??= `a process that plays workers ended with ${code}`));
      child.on("message", (report: CrowdReport) => {
        for (const one of report.roundTrips) this.roundTrips.push(one);
        this.last[i] = report;
      });
      child.send({
        ...options,
        rollouts: share(options.rollouts),
        learners: share(options.learners),
        flooders: share(options.flooders),
        firstRollout: Math.floor((options.rollouts * i) / count),
        firstLearner: Math.floor((options.learners * i) / count),
        firstFlooder: Math.floor((options.flooders * i) / count),
      } satisfies CrowdOptions);
    }
  }

  /** @throws {TroupeError} INTERNAL when one of them is gone */
  check(): void {
    if (this.failure !== undefined) throw new TroupeError("INTERNAL", `load: ${this.failure}`);
  }

  get cpuSeconds(): number {
    return this.total("cpuSeconds");
  }

  get joined(): number {
    return this.total("joined");
  }

  get gaveUp(): number {
    return this.total("gaveUp");
  }

  private total(of: "cpuSeconds" | "joined" | "gaveUp"): number {
    return this.last.reduce((sum, report) => sum + report[of], 0);
  }

  takeRoundTrips(): number[] {
    const taken = this.roundTrips;
    this.roundTrips = [];
    return taken;
  }

  kill(): void {
    for (const child of this.children) {
      child.removeAllListeners("exit");
      child.kill("SIGKILL");
    }
  }
}
