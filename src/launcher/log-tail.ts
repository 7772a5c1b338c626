/** The end of a log file: what a process said last, made safe to print. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { escapeControl } from "../observability/text.js";

const TAIL_BYTES = 16 * 1024;
const LINE_CHARACTERS = 240;
const ERROR = "error: ";

/**
 * @param fromByte where the process's own output starts in the file
 * @param count    lines at most
 * @returns oldest first; empty when nothing was written or the file is gone
 */
export function lastLogLines(path: string, fromByte: number, count: number): string[] {
  return tailLines(path, fromByte)
    .slice(-count)
    .map((line) => (line.length > LINE_CHARACTERS ? `${line.slice(0, LINE_CHARACTERS - 1)}…` : line));
}

/**
 * What a process of ours said went wrong: all from the last line `error: …` on, which is how the program ends when it
 * fails (src/cli/main.ts).
 * @returns without that word; undefined when it said no such thing
 */
export function lastError(path: string, fromByte: number): string | undefined {
  const lines = tailLines(path, fromByte);
  const start = lines.findLastIndex((line) => line.startsWith(ERROR));
  return start === -1 ? undefined : lines.slice(start).join("\n").slice(ERROR.length);
}

/** Lines that are not blank, safe to print; none when the log cannot be read. */
function tailLines(path: string, fromByte: number): string[] {
  let file: number | undefined;
  try {
    file = openSync(path, "r");
    const size = fstatSync(file).size;
    const start = Math.max(fromByte, size - TAIL_BYTES);
    const buffer = Buffer.alloc(Math.max(0, size - start));
    const read = readSync(file, buffer, 0, buffer.length, start);
    return buffer
      .toString("utf8", 0, read)
      .split("\n")
      .map((line) => escapeControl(stripColor(line.trimEnd())))
      .filter((line) => line !== "");
  } catch {
    return []; // the report of a death must not fail for want of a log
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/** Colour codes of the pretty log are not part of the message. */
const stripColor = (line: string): string => line.replace(/\u001b\[[0-9;]*m/g, "");
