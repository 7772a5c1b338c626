/**
 * What a person sees while a run goes on: one bar per stage (redrawn in place on a terminal, plain lines every few
 * seconds otherwise), where things listen, and what happened to processes.
 */
import type { ProgressEvent, ProgressStage } from "../observability/progress.js";
import { escapeControl } from "../observability/text.js";
import { colorsFor, fit, Terminal, type Colors, type TextStream } from "./terminal.js";
import type { SupervisorEvent } from "./supervisor.js";

export interface ProgressViewOptions {
  readonly stream: TextStream;
  readonly env?: NodeJS.ProcessEnv;
  /** Monotonic milliseconds. @default performance.now */
  readonly now?: () => number;
  /** Between two lines of the same stage when there is no terminal. @default 5_000 */
  readonly plainIntervalMs?: number;
}

interface StageState {
  readonly stage: ProgressStage;
  readonly unit: string;
  readonly firstUnit: number;
  readonly startedAtMs: number;
  totalUnits: number;
  completedUnits: number;
  metrics: Readonly<Record<string, number>>;
  shownAtMs: number;
}

/** The few numbers worth watching, by stage: name in the record, label, decimals. */
const WATCHED: Readonly<Record<ProgressStage, readonly (readonly [string, string, number])[]>> = {
  sft: [
    ["loss", "loss", 3],
    ["eval_loss", "held-out loss", 3],
  ],
  reward: [
    ["loss", "loss", 3],
    ["accuracy", "accuracy", 3],
    ["eval_accuracy", "held-out accuracy", 3],
  ],
  ppo: [
    ["objective/scores", "reward", 3],
    ["objective/kl", "kl", 3],
    ["policy/clipfrac_avg", "clipped", 3],
    ["val/response_tokens", "tokens", 1],
  ],
  eval: [],
};

const BAR_CELLS = 24;

export class ProgressView {
  readonly #terminal: Terminal;
  readonly #colors: Colors;
  readonly #now: () => number;
  readonly #plainIntervalMs: number;
  #stage: StageState | undefined;

  constructor(options: ProgressViewOptions) {
    this.#terminal = new Terminal(options.stream, options.env);
    this.#colors = colorsFor(options.stream, options.env);
    this.#now = options.now ?? (() => performance.now());
    this.#plainIntervalMs = options.plainIntervalMs ?? 5_000;
  }

  listening({ url, grpcAddress, runDir }: { url: string; grpcAddress: string; runDir: string }): void {
    this.#terminal.line(`dashboard      ${this.#colors.cyan(url)}`);
    this.#terminal.line(`coordinator    ${grpcAddress}`);
    this.#terminal.line(`run directory  ${escapeControl(runDir)}`);
  }

  note(text: string): void {
    this.#terminal.line(escapeControl(text));
  }

  stopping(): void {
    this.#terminal.clear();
    this.#terminal.line("stopping all processes (again to stop at once)");
  }

  close(): void {
    this.#terminal.clear();
  }

  supervisorEvent(event: SupervisorEvent): void {
    const { dim, yellow } = this.#colors;
    switch (event.type) {
      case "started": {
        const again = event.restarts === 0 ? "started" : `restarted (${event.restarts})`;
        this.#terminal.line(dim(`${event.name.padEnd(14)} ${again}, pid ${event.pid}`));
        return;
      }
      case "stopped":
        this.#terminal.line(dim(`${event.name.padEnd(14)} stopped`));
        return;
      case "left": {
        const seconds = (event.restartInMs / 1000).toFixed(1);
        this.#terminal.line(dim(`${event.name.padEnd(14)} left; wanted again in ${seconds} s`));
        return;
      }
      case "died": {
        const seconds = (event.restartInMs / 1000).toFixed(1);
        const budget = `restart ${event.used} of ${event.allowed} allowed in 10 min`;
        this.#terminal.line(
          yellow(
            `${event.name} (pid ${event.pid ?? "none"}): ${event.cause.text}; ${budget}, in ${seconds} s`,
          ),
        );
        for (const line of event.lastLines) this.#terminal.line(dim(`    | ${line}`));
        if (event.lastLines.length > 0) this.#terminal.line(dim(`    log: ${event.logPath}`));
        return;
      }
    }
    event satisfies never;
  }

  progressEvent(event: ProgressEvent): void {
    switch (event.type) {
      case "run-started":
        this.#terminal.line(
          `run ${escapeControl(event.runId)}: ${event.stages.map(escapeControl).join(", ")}`,
        );
        return;
      case "stage-started":
        this.#stage = this.#begin(event.stage, event.unit, event.totalUnits, event.completedUnits);
        this.#show(true);
        return;
      case "progress":
        this.#advance(event);
        return;
      case "stage-finished":
        this.#finish(event);
        return;
      case "message":
        this.#message(event.level, event.text);
        return;
      case "worker-joined":
        this.#terminal.line(
          this.#colors.dim(
            `${escapeControl(event.workerId).padEnd(14)} joined, pid ${event.pid}, metrics port ${event.port}`,
          ),
        );
        return;
      case "worker-lost":
        this.#terminal.line(
          this.#colors.yellow(`${escapeControl(event.workerId)} lost: ${escapeControl(event.reason)}`),
        );
        return;
      case "worker-restarted":
        this.#terminal.line(
          this.#colors.dim(
            `${escapeControl(event.workerId).padEnd(14)} is back, pid ${event.pid}, metrics port ${event.port}`,
          ),
        );
        return;
      case "run-finished":
        // Why it failed is told where the coordinator's exit is: there the whole message is, with its log and the way on.
        this.#terminal.clear();
        return;
      case "samples":
      case "checkpoint":
        return; // shown by the dashboard
    }
    event satisfies never;
  }

  #begin(stage: ProgressStage, unit: string, totalUnits: number, completedUnits: number): StageState {
    const nowMs = this.#now();
    return {
      stage,
      unit,
      totalUnits,
      completedUnits,
      firstUnit: completedUnits,
      startedAtMs: nowMs,
      metrics: {},
      shownAtMs: -Infinity,
    };
  }

  #advance(event: Extract<ProgressEvent, { type: "progress" }>): void {
    if (this.#stage?.stage !== event.stage)
      this.#stage = this.#begin(event.stage, "step", event.totalUnits, event.completedUnits);
    this.#stage.completedUnits = event.completedUnits;
    this.#stage.totalUnits = event.totalUnits;
    this.#stage.metrics = event.metrics;
    this.#show(false);
  }

  #show(isFirst: boolean): void {
    const state = this.#stage;
    if (state === undefined) return;
    const nowMs = this.#now();
    if (this.#terminal.isLive) this.#terminal.live(this.#bar(state, nowMs));
    else if (isFirst || nowMs - state.shownAtMs >= this.#plainIntervalMs) {
      this.#terminal.line(this.#bar(state, nowMs));
      state.shownAtMs = nowMs;
    }
  }

  #finish(event: Extract<ProgressEvent, { type: "stage-finished" }>): void {
    const state = this.#stage?.stage === event.stage ? this.#stage : this.#begin(event.stage, "step", 0, 0);
    if (Object.keys(event.metrics).length > 0) state.metrics = { ...state.metrics, ...event.metrics };
    this.#terminal.clear();
    const done = `${event.stage.padEnd(6)} done in ${formatDuration(event.elapsedMs)}`;
    this.#terminal.line(this.#colors.green([done, ...this.#numbers(state)].join("  ")));
    this.#stage = undefined;
  }

  #message(level: "info" | "warn" | "error", text: string): void {
    const paint = { info: (line: string) => line, warn: this.#colors.yellow, error: this.#colors.red }[level];
    this.#terminal.line(paint(escapeControl(text)));
  }

  #bar(state: StageState, nowMs: number): string {
    const share = state.totalUnits === 0 ? 0 : Math.min(1, state.completedUnits / state.totalUnits);
    const full = Math.round(share * BAR_CELLS);
    const bar = "█".repeat(full) + "░".repeat(BAR_CELLS - full);
    const width = String(state.totalUnits).length;
    const count = `${String(state.completedUnits).padStart(width)}/${state.totalUnits} ${state.unit}s`;
    const text = [
      `${state.stage.padEnd(6)} ${bar}  ${count}`,
      ...this.#numbers(state),
      this.#remaining(state, nowMs),
    ]
      .filter((part) => part !== "")
      .join("  ");
    return fit(text, this.#terminal.isLive ? this.#terminal.columns - 1 : 160);
  }

  #numbers(state: StageState): string[] {
    return WATCHED[state.stage]
      .filter(([name]) => state.metrics[name] !== undefined)
      .map(([name, label, decimals]) => `${label} ${formatNumber(state.metrics[name], decimals)}`);
  }

  #remaining(state: StageState, nowMs: number): string {
    const done = state.completedUnits - state.firstUnit;
    if (done <= 0 || state.completedUnits >= state.totalUnits) return "";
    const msPerUnit = (nowMs - state.startedAtMs) / done;
    return `${formatDuration(msPerUnit * (state.totalUnits - state.completedUnits))} left`;
  }
}

export function formatNumber(value: number, decimals: number): string {
  if (!Number.isFinite(value)) return String(value);
  const isTiny = value !== 0 && Math.abs(value) < 0.5 * 10 ** -decimals;
  return isTiny ? value.toExponential(1) : value.toFixed(decimals);
}

/** `8.1 s`, `4 min 05 s`, `2 h 10 min` */
export function formatDuration(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
}
