/** The end of a run for a person: the numbers before and after, a few answers side by side, and what to do next. */
import { relative } from "node:path";
import { escapeControl } from "../observability/text.js";
import { formatDuration } from "./progress-view.js";
import type { EvalSample, Summary } from "./summary.js";
import { colorsFor, type TextStream } from "./terminal.js";

export interface SummaryViewOptions {
  readonly summary: Summary;
  readonly samples: readonly EvalSample[];
  /** Answers shown at most. */
  readonly sampleCount: number;
  readonly stream: TextStream;
  readonly env?: NodeJS.ProcessEnv;
  /** Folder that printed paths are relative to. */
  readonly cwd: string;
}

export function printSummary({ summary, samples, sampleCount, stream, env, cwd }: SummaryViewOptions): void {
  const colors = colorsFor(stream, env);
  const write = (line: string) => stream.write(`${line}\n`);
  write("");
  for (const line of resultTable(summary)) write(line);
  const width = Math.min(Math.max(stream.columns ?? 100, 60), 140);
  const shown = samples.slice(0, sampleCount);
  if (shown.length > 0) write(`\n${colors.bold("Answers before and after ppo")}`);
  for (const sample of shown) for (const line of sampleBlock(sample, width)) write(line);
  write("");
  if (isGiven(summary.seconds)) write(`wall time  ${formatDuration(summary.seconds * 1000)}`);
  if (isGiven(summary.model)) {
    const path = shortPath(cwd, summary.model);
    write(`model      ${path}`);
    write(`next       ${colors.cyan(`npx troupe chat --model ${quoteForShell(path)}`)}`);
  }
}

type Cells = readonly [string, string, string];

/** Rows of measure, before, after; a measure without a "before" leaves that cell empty. */
export function resultTable(summary: Summary): string[] {
  const rows: Cells[] = [];
  const pair = (name: string, before: number | null | undefined, after: number | null | undefined) => {
    if (!isGiven(before) && !isGiven(after)) return;
    rows.push([name, isGiven(before) ? show(before) : "", isGiven(after) ? show(after) : ""]);
  };
  const { sft, reward, ppo } = summary;
  pair("sft held-out loss (nats per token)", sft?.evalLossBefore, sft?.evalLossAfter);
  pair("reward model held-out accuracy", undefined, reward?.heldOutAccuracy);
  pair("held-out reward", ppo?.heldOutReward?.before, ppo?.heldOutReward?.after);
  pair("gold score (true quality, never trained on)", ppo?.goldScore?.before, ppo?.goldScore?.after);
  pair("KL to the reference (nats per answer)", undefined, ppo?.klToRef);
  if (rows.length === 0) return [];
  const header: Cells = ["", "before", "after"];
  const widths = [0, 1, 2].map((i) => Math.max(...[header, ...rows].map((row) => row[i].length)));
  const line = (row: Cells) =>
    `${row[0].padEnd(widths[0])}  ${row[1].padStart(widths[1])}  ${row[2].padStart(widths[2])}`;
  return [line(header), "─".repeat(widths[0] + widths[1] + widths[2] + 4), ...rows.map(line)];
}

/** A prompt, then both answers in two columns. Everything a model or a data set wrote is escaped. */
export function sampleBlock(sample: EvalSample, width: number): string[] {
  const gap = " │ ";
  const column = Math.floor((width - gap.length) / 2);
  const heading = (label: string, reward: number | null | undefined) =>
    isGiven(reward) ? `${label} (reward ${show(reward)})` : label;
  const left = [heading("before", sample.rewardBefore), ...wrap(escapeControl(sample.before.trim()), column)];
  const right = [heading("after", sample.rewardAfter), ...wrap(escapeControl(sample.after.trim()), column)];
  const rows = Array.from({ length: Math.max(left.length, right.length) }, (_, i) => {
    const [a, b] = [left[i] ?? "", right[i] ?? ""];
    return `${a}${" ".repeat(Math.max(0, column - [...a].length))}${gap}${b}`.trimEnd();
  });
  return ["", ...wrap(`> ${escapeControl(sample.prompt.trim())}`, width), ...rows];
}

/** Breaks at spaces; a word longer than a line is cut. Widths count code points. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    let rest = word;
    if (line !== "" && [...line].length + 1 + [...rest].length > width) {
      lines.push(line);
      line = "";
    }
    while ([...rest].length > width) {
      lines.push([...rest].slice(0, width).join(""));
      rest = [...rest].slice(width).join("");
    }
    line = line === "" ? rest : `${line} ${rest}`;
  }
  return [...lines, line];
}

const isGiven = <T>(value: T | null | undefined): value is T => value !== null && value !== undefined;

const show = (value: number): string => (Number.isFinite(value) ? value.toFixed(3) : String(value));

function shortPath(cwd: string, path: string): string {
  const short = relative(cwd, path);
  return escapeControl(short === "" || short.startsWith("..") ? path : short);
}

const quoteForShell = (path: string): string =>
  /^[\w./@+-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
