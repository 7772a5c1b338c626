/** Turns one NDJSON log line into one readable line (plus an indented stack trace when an error is attached). */
import pc from "picocolors";
import { escapeControl, escapeControlLines } from "./text.js";

/** Fields every line carries; the rest is printed as key=value after the message. */
const STANDARD_FIELDS = new Set(["level", "time", "msg", "run_id", "role", "worker_id", "pid", "err"]);

/**
 * `12:03:44.120 INFO  rollout-1  text  iteration=3`. Every control character that came in through a value is
 * printed as an escape.
 * @returns the text for one log line, newline included; text that is not JSON comes back escaped
 */
export function createPrettyPrinter(options: { readonly color: boolean }): (line: string) => string {
  const colors = pc.createColors(options.color);
  const levelColor: Readonly<Record<string, typeof pc.red>> = {
    trace: colors.dim,
    debug: colors.dim,
    info: colors.green,
    warn: colors.yellow,
    error: colors.red,
    fatal: colors.red,
  };
  return (line) => {
    const record = parseRecord(line);
    if (record === undefined) return `${escapeControl(line.trimEnd())}\n`;
    const level = text(record["level"]);
    const paint = levelColor[level] ?? colors.dim;
    const fields = Object.entries(record).filter(([key]) => !STANDARD_FIELDS.has(key));
    const parts = [
      colors.dim(text(record["time"]).slice(11, 23)),
      paint(level.toUpperCase().padEnd(5)),
      colors.cyan(escapeControl(text(record["worker_id"] ?? record["role"]))),
      escapeControl(text(record["msg"])),
      ...fields.map(([key, value]) => `${colors.dim(`${escapeControl(key)}=`)}${escapeControl(text(value))}`),
    ];
    return `${parts.filter((part) => part !== "").join("  ")}\n${stackOf(record["err"], colors.dim)}`;
  };
}

function parseRecord(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined; // not one of our lines; the caller prints it as it is
  }
}

function text(value: unknown): string {
  if (value === undefined || value === null) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

function stackOf(error: unknown, paint: (text: string) => string): string {
  if (typeof error !== "object" || error === null) return "";
  const { stack, message } = error as { stack?: unknown; message?: unknown };
  const lines = escapeControlLines(text(stack ?? message)).split("\n");
  return lines.map((stackLine) => `    ${paint(stackLine)}\n`).join("");
}
