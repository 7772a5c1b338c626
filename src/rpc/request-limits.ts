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
        if (bytes.length > rule.maxRequestBytes) {
          const details = `${method.path}: expected a message of at most ${rule.maxRequestBytes} bytes, got ${bytes.length}`;
          return refused(grpc.status.RESOURCE_EXHAUSTED, details);
        }
        try {
          return decode(bytes);
        } catch (error) {
          const reason = error instanceof Error ? error.message : String(error);
          const details = `${method.path}: the message does not decode (${reason}); run the same release of troupe everywhere`;
          return refused(grpc.status.INVALID_ARGUMENT, details);
        }
      };
      return [name, { ...method, requestDeserialize }];
    }),
  );
}

const refused = (code: grpc.status, details: string): RefusedRequest =>
  new RefusedRequest({ code, details, metadata: errorMetadata("PROTOCOL") });
