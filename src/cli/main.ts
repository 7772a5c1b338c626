/** The program: parses the command line, runs one command, and turns its outcome into one message and an exit code. */
import { CommanderError } from "commander";
import { describeError, errorCodeOf, EXIT_CODES, TroupeError } from "../shared/errors.js";
import { escapeControlLines } from "../observability/text.js";
import { ProcessLifetime } from "./lifetime.js";
import { buildProgram } from "./program.js";

const lifetime = new ProcessLifetime((code) => process.exit(code));
const program = buildProgram(lifetime);

/** Prints why, and says which exit code that is. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_CODES.CONFIG; // commander has printed it
  const isOurs = error instanceof TroupeError;
  const isDebug = program.opts<{ debug?: boolean }>().debug === true;
  if (isOurs && error.code === "CANCELLED" && !isDebug) {
    console.error(escapeControlLines(error.message));
    // SIGTERM is how supervisors say "stop": having stopped is success.
    return lifetime.endedBy === "SIGTERM" ? 0 : EXIT_CODES.CANCELLED;
  }
  const text = isDebug && error instanceof Error ? (error.stack ?? error.message) : messageChain(error);
  console.error(`error: ${escapeControlLines(text)}`);
  if (isDebug && error instanceof Error && error.cause !== undefined) console.error("cause:", error.cause);
  if (!isOurs && !isDebug) console.error("This is a defect in troupe; --debug shows where it happened.");
  return EXIT_CODES[errorCodeOf(error)];
}

/** The message and what lies behind it, without saying the same twice. */
function messageChain(error: unknown): string {
  if (!(error instanceof Error) || error.cause === undefined) return describeError(error);
  const cause = messageChain(error.cause);
  return error.message.includes(cause) ? error.message : `${error.message} (cause: ${cause})`;
}

/** Ends the process once what was printed has reached its reader. */
function exitWith(code: number): void {
  process.stdout.write("", () => process.stderr.write("", () => process.exit(code)));
}

// `troupe config docs | head` closes the pipe early; that is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) =>
  process.exit(error.code === "EPIPE" ? 0 : EXIT_CODES.STORAGE),
);
process.on("uncaughtException", (error) => exitWith(report(error)));
process.on("unhandledRejection", (reason) => exitWith(report(reason)));

try {
  await program.parseAsync();
  exitWith(Number(process.exitCode ?? 0));
} catch (error) {
  exitWith(report(error));
}
