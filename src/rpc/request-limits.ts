/**
 * What a request must be before a handler sees it: no longer than its method's limit, and bytes that decode. grpc-js
 * itself would answer INTERNAL for bytes that do not; here the caller learns whose fault it was.
 */
import * as grpc from "@grpc/grpc-js";
import { METHOD_RULES } from "./method-rules.js";
import { errorMetadata } from "./status.js";

/** Stands in for a message that was refused; the server's interceptor answers with its status. */
export class RefusedRequest {
  constructor(readonly status: grpc.StatusObject) {}
}

/**
 * The same service, with every request checked.
 * @throws {Error} for a method without a rule: a new one must say who may call it
 */
export function withRequestLimits(service: grpc.ServiceDefinition): grpc.ServiceDefinition {
  return Object.fromEntries(
    Object.entries(service).map(([name, method]) => {
      const rule = METHOD_RULES[method.path];
      if (rule === undefined)
        throw new Error(`${method.path} has no line in METHOD_RULES (src/rpc/method-rules.ts)`);
      const decode = method.requestDeserialize;
      const requestDeserialize = (bytes: Buffer): unknown => {
        const { maxRequestBytes } = rule;
        if (bytes.length > maxRequestBytes)
          return new RefusedRequest(tooLong(method.path, maxRequestBytes, bytes.length));
        try {
          return decode(bytes);
        } catch (error) {
          return new RefusedRequest(undecodable(method.path, error));
        }
      };
      return [name, { ...method, requestDeserialize }];
    }),
  );
}

/** Status of a message of `got` bytes where the method at `path` takes `limit`. */
export const tooLong = (path: string, limit: number, got: number): grpc.StatusObject =>
  refusal(
    grpc.status.RESOURCE_EXHAUSTED,
    `${path}: expected a message of at most ${limit} bytes, got ${got}`,
  );

/** Status of a message whose decoding threw `error`. */
export function undecodable(path: string, error: unknown): grpc.StatusObject {
  const reason = error instanceof Error ? error.message : String(error);
  const details = `${path}: the message does not decode (${reason}); run the same release of troupe everywhere`;
  return refusal(grpc.status.INVALID_ARGUMENT, details);
}

const refusal = (code: grpc.status, details: string): grpc.StatusObject => ({
  ...{ code, details },
  metadata: errorMetadata("PROTOCOL"),
});
