/**
 * Errors on their way out of a compute thread. Structured clone keeps an error's message and cause but drops its class
 * and every other property, so the code travels in the cause.
 */
import { TroupeError, type ErrorCode } from "../shared/errors.js";

interface CodeInCause {
  readonly troupeErrorCode: ErrorCode;
  readonly cause: unknown;
}

/** In the thread: the form in which to throw. */
export function toThreadError(error: unknown): unknown {
  if (!(error instanceof TroupeError)) return error;
  const cause: CodeInCause = { troupeErrorCode: error.code, cause: error.cause };
  return Object.assign(new Error(error.message, { cause }), { stack: error.stack });
}

/** Outside: the `TroupeError` that was thrown; anything else as it is. */
export function fromThreadError(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof TroupeError) return error;
  const carried = error.cause as Partial<CodeInCause> | null | undefined;
  if (typeof carried !== "object" || carried?.troupeErrorCode === undefined) return error;
  const options = carried.cause === undefined ? undefined : { cause: carried.cause };
  return new TroupeError(carried.troupeErrorCode, error.message, options);
}

/** Wraps an exported function of a thread module so that its errors keep their code. */
export function threadFunction<Argument, Result>(
  run: (argument: Argument) => Promise<Result>,
): (argument: Argument) => Promise<Result> {
  return async (argument) => {
    try {
      return await run(argument);
    } catch (error) {
      throw toThreadError(error);
    }
  };
}
