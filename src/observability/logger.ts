/**
 * Logs: NDJSON to one file per process (for machines and for later), pretty lines to stderr (for people).
 *
 * Secrets never reach either: known field names are redacted by pino, and the given secret values plus anything that
 * looks like a bearer or Hugging Face token are cut out of the finished line, wherever they came from.
 */
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import pino, { type DestinationStream, type Logger as PinoLogger } from "pino";
import { storageError } from "../shared/errors.js";
import { createPrettyPrinter } from "./pretty-printer.js";
import { escapeControlLines } from "./text.js";
import type { ProcessRole } from "../shared/roles.js";

export type LogLevel = "trace" | "debug" | "info" | "warn" | "error" | "fatal" | "silent";
export type LogRole = ProcessRole | "launcher" | "cli";

/** `log.info({ iteration: 3 }, "text")`, `log.child({ task: "12/0" })`; errors under `err`. */
export interface Logger extends PinoLogger {
  /** Writes out what is buffered and closes the file; later lines go to stderr alone. Idempotent. */
  close(): Promise<void>;
}

export interface LoggerOptions {
  readonly role: LogRole;
  readonly runId?: string;
  readonly workerId?: string;
  /** NDJSON file, appended to; its folder is made. Without it nothing goes to a file. */
  readonly file?: string;
  /** For the file. @default "debug" */
  readonly fileLevel?: LogLevel;
  /** For stderr. @default "info" */
  readonly level?: LogLevel;
  /** Where pretty lines go. @default process.stderr; a terminal with a progress bar passes its own */
  readonly pretty?: { write(text: string): unknown; readonly isTTY?: boolean };
  /** @default true when `pretty` is a terminal, NO_COLOR is unset or empty; FORCE_COLOR overrides */
  readonly color?: boolean;
  /** Values that must never be written: the join token, HF_TOKEN. Shorter than 8 characters is ignored. */
  readonly secrets?: readonly string[];
}

const REDACTED = "[redacted]";

/** Field names whose value is a secret, at the top level and one and two levels down. */
const SECRET_FIELDS = [
  "token",
  "joinToken",
  "authorization",
  "password",
  "secret",
  "apiKey",
  "HF_TOKEN",
  "TROUPE_TOKEN",
];
const REDACT_PATHS = SECRET_FIELDS.flatMap((field) => [field, `*.${field}`, `*.*.${field}`]);

/** `Bearer x`, `hf_x`: token shapes that give themselves away. */
const TOKEN_SHAPES = /\b(Bearer\s+)[A-Za-z0-9._~+/=-]{8,}|\bhf_[A-Za-z0-9]{16,}/g;

/**
 * @throws {TroupeError} STORAGE when the log file cannot be opened
 */
export function createLogger(options: LoggerOptions): Logger {
  const scrub = createScrubber(options.secrets ?? []);
  const streams: { level: LogLevel; stream: DestinationStream }[] = [];

  const pretty = options.pretty ?? process.stderr;
  const printer = createPrettyPrinter({ color: options.color ?? wantsColor(pretty) });
  const level = options.level ?? "info";
  if (level !== "silent") {
    streams.push({ level, stream: { write: (line) => void pretty.write(printer(scrub(line))) } });
  }

  const file = options.file === undefined ? undefined : openLogFile(options.file);
  const fileLevel = options.fileLevel ?? "debug";
  let closing: Promise<void> | undefined;
  if (file !== undefined && fileLevel !== "silent") {
    const write = (line: string) => {
      // What is still under way when a process ends may log; a closed file would throw into it.
      if (closing === undefined) file.write(escapeControlLines(scrub(line)));
    };
    streams.push({ level: fileLevel, stream: { write } });
  }

  const logger = pino(
    {
      level: lowest(streams.map((s) => s.level)),
      base: { run_id: options.runId, role: options.role, worker_id: options.workerId, pid: process.pid },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: REDACT_PATHS, censor: REDACTED },
    },
    pino.multistream(streams as pino.StreamEntry[]),
  );

  const close = () => {
    closing ??= new Promise((resolve) => {
      if (file === undefined) return resolve();
      file.once("close", () => resolve());
      file.end();
    });
    return closing;
  };
  return Object.assign(logger, { close });
}

function openLogFile(path: string) {
  try {
    mkdirSync(dirname(path), { recursive: true });
    // sync: false keeps a slow disk from holding up heartbeats; what is buffered is written at exit by pino.
    const file = pino.destination({ dest: path, sync: false, append: true });
    // A full disk must not end the run: the line is lost, training is not.
    file.on("error", () => {});
    return file;
  } catch (error) {
    throw storageError(`cannot open log file ${path}; check that its folder is writable`, { cause: error });
  }
}

/** Cuts secrets out of finished text. */
function createScrubber(secrets: readonly string[]): (text: string) => string {
  const values = secrets.filter((secret) => secret.length >= 8);
  // A secret inside a JSON line appears in its JSON-escaped form.
  const needles = [...new Set(values.flatMap((value) => [value, JSON.stringify(value).slice(1, -1)]))];
  return (text) => {
    let clean = text.replace(
      TOKEN_SHAPES,
      (_match, bearer: string | undefined) => `${bearer ?? ""}${REDACTED}`,
    );
    for (const needle of needles) clean = clean.replaceAll(needle, REDACTED);
    return clean;
  };
}

function wantsColor(stream: { readonly isTTY?: boolean }): boolean {
  const { NO_COLOR, FORCE_COLOR } = process.env;
  if (FORCE_COLOR !== undefined && FORCE_COLOR !== "" && FORCE_COLOR !== "0") return true;
  return stream.isTTY === true && (NO_COLOR === undefined || NO_COLOR === "");
}

const ORDER: readonly LogLevel[] = ["trace", "debug", "info", "warn", "error", "fatal", "silent"];

function lowest(levels: readonly LogLevel[]): LogLevel {
  return ORDER.find((level) => levels.includes(level)) ?? "silent";
}
