/**
 * The few error kinds a caller can act on, and the exit code each one means (docs/operations.md#exit-codes).
 *
 * A message says what went wrong, with which file/field/id, what was expected, what came, and the next step.
 */
export type ErrorCode =
  | "CONFIG" // usage or configuration; restarting cannot help
  | "DATA" // a data set, model, tokenizer or checkpoint that cannot be used
  | "SHAPE" // tensor shapes that do not fit together
  | "NUMERIC" // NaN or infinity where a finite number is required
  | "PROTOCOL" // a message that breaks the wire contract
  | "AUTH" // missing or wrong join token
  | "UNREACHABLE" // the coordinator cannot be reached
  | "RUN_DIR_IN_USE"
  | "STORAGE" // disk full, permission, I/O error
  | "FENCED" // this process was replaced or given up; its work no longer counts
  | "REPLACED" // another process took this worker's id
  | "BUDGET" // a role used up its restart budget
  | "CANCELLED"
  | "INTERNAL";

/** Exit codes that supervisors (systemd, Kubernetes, the local launcher) read; 0 is success. */
export const EXIT_CODES: Readonly<Record<ErrorCode, number>> = {
  CONFIG: 2,
  DATA: 65,
  SHAPE: 65,
  NUMERIC: 20,
  PROTOCOL: 70,
  AUTH: 77,
  UNREACHABLE: 69,
  RUN_DIR_IN_USE: 73,
  STORAGE: 74,
  FENCED: 75,
  REPLACED: 75,
  BUDGET: 12,
  CANCELLED: 130,
  INTERNAL: 70,
};

/** Exit codes after which a supervisor must not restart the process: the same input would fail again. */
export const FATAL_EXIT_CODES: ReadonlySet<number> = new Set([2, 20, 65, 73, 77]);

export class TroupeError extends Error {
  override readonly name = "TroupeError";
  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

export const configError = (message: string, options?: ErrorOptions) =>
  new TroupeError("CONFIG", message, options);
export const dataError = (message: string, options?: ErrorOptions) =>
  new TroupeError("DATA", message, options);
export const shapeError = (message: string, options?: ErrorOptions) =>
  new TroupeError("SHAPE", message, options);
export const numericError = (message: string, options?: ErrorOptions) =>
  new TroupeError("NUMERIC", message, options);
export const protocolError = (message: string, options?: ErrorOptions) =>
  new TroupeError("PROTOCOL", message, options);
export const storageError = (message: string, options?: ErrorOptions) =>
  new TroupeError("STORAGE", message, options);

/** A code that came over the wire; one that this release does not know is INTERNAL. */
export const asErrorCode = (code: string): ErrorCode =>
  Object.hasOwn(EXIT_CODES, code) ? (code as ErrorCode) : "INTERNAL";

/** The code of any thrown value; what is not ours is INTERNAL. */
export function errorCodeOf(error: unknown): ErrorCode {
  return error instanceof TroupeError ? error.code : "INTERNAL";
}

/** The message chain of a thrown value, outermost first, for a log line. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? "" : ` (cause: ${describeError(error.cause)})`;
  return `${error.message}${cause}`;
}
