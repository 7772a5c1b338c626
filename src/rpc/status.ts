/** One table: our error codes, the gRPC status that carries them, and whether trying again can help. */
import * as grpc from "@grpc/grpc-js";
import { TroupeError, errorCodeOf, describeError, type ErrorCode } from "../shared/errors.js";

const TABLE: Readonly<Record<ErrorCode, grpc.status>> = {
  CONFIG: grpc.status.INVALID_ARGUMENT,
  DATA: grpc.status.INVALID_ARGUMENT,
  SHAPE: grpc.status.INVALID_ARGUMENT,
  NUMERIC: grpc.status.OUT_OF_RANGE,
  PROTOCOL: grpc.status.INVALID_ARGUMENT,
  AUTH: grpc.status.UNAUTHENTICATED,
  UNREACHABLE: grpc.status.UNAVAILABLE,
  RUN_DIR_IN_USE: grpc.status.ALREADY_EXISTS,
  STORAGE: grpc.status.RESOURCE_EXHAUSTED,
  FENCED: grpc.status.FAILED_PRECONDITION,
  REPLACED: grpc.status.FAILED_PRECONDITION,
  BUDGET: grpc.status.ABORTED,
  CANCELLED: grpc.status.CANCELLED,
  INTERNAL: grpc.status.INTERNAL,
};

const CODE_KEY = "troupe-error-code";

/** A caller with a valid token that is not the one this is for: PERMISSION_DENIED, where AUTH alone is UNAUTHENTICATED. */
export class PermissionError extends TroupeError {
  constructor(message: string) {
    super("AUTH", message);
  }
}

/** Carries our code next to the status, which is coarser. */
export function errorMetadata(code: ErrorCode): grpc.Metadata {
  const metadata = new grpc.Metadata();
  metadata.set(CODE_KEY, code);
  return metadata;
}

/** An error that is one already stays what it is. */
export function toServiceError(error: unknown): grpc.ServiceError {
  if (isServiceError(error)) return error;
  const code = errorCodeOf(error);
  const details = describeError(error);
  const status = error instanceof PermissionError ? grpc.status.PERMISSION_DENIED : TABLE[code];
  return Object.assign(new Error(details), { code: status, details, metadata: errorMetadata(code) });
}

/** An error that ends a call with this status. */
export const asServiceError = (status: grpc.StatusObject): grpc.ServiceError =>
  Object.assign(new Error(status.details), status);

const isServiceError = (error: unknown): error is grpc.ServiceError =>
  error instanceof Error && "code" in error && typeof error.code === "number" && "metadata" in error;

export function fromServiceError(error: unknown, doing: string): TroupeError {
  if (error instanceof TroupeError) return error;
  if (!isServiceError(error))
    return new TroupeError("INTERNAL", `${doing}: ${describeError(error)}`, { cause: error });
  const sent = error.metadata?.get(CODE_KEY)?.[0];
  const message = `${doing}: ${readable(error.details || error.message)}`;
  // What was sent is the whole message; the status it came in would only say it again.
  if (typeof sent === "string" && sent in TABLE) return new TroupeError(sent as ErrorCode, message);
  switch (error.code) {
    case grpc.status.UNAVAILABLE:
    case grpc.status.DEADLINE_EXCEEDED:
      return new TroupeError("UNREACHABLE", message);
    case grpc.status.UNAUTHENTICATED:
    case grpc.status.PERMISSION_DENIED:
      return new TroupeError("AUTH", message, { cause: error });
    case grpc.status.CANCELLED:
      return new TroupeError("CANCELLED", message, { cause: error });
    case grpc.status.INTERNAL:
      // How grpc-js reports a server that went away in the middle of a stream.
      return new TroupeError(/RST_STREAM/.test(error.details) ? "UNREACHABLE" : "INTERNAL", message, {
        cause: error,
      });
    default:
      return new TroupeError("INTERNAL", message, { cause: error });
  }
}

/** grpc-js wraps the reason in two layers of its own words, and lists what it did until a deadline. */
function readable(details: string): string {
  const [, reason] =
    /^No connection established\. Last error: (?:Error: )?(.*?)\.? Resolution note: *$/.exec(details) ?? [];
  return reason ?? details.replace(/^Deadline exceeded after ([\d.]+s)\b.*$/s, "no answer within $1");
}

/** Whether the same call may succeed later without anything being changed. */
export const isRetryable = (error: TroupeError): boolean => error.code === "UNREACHABLE";
