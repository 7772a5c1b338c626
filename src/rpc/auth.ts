/**
 * The join token: 32 random bytes in hex, one per run, in a file only its owner can read. Workers and tools send it
 * with every call; the server checks it before a message is decoded. Loopback listeners may run without one.
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import * as grpc from "@grpc/grpc-js";
import { configError, TroupeError } from "../shared/errors.js";

const HEADER = "authorization";

export function readToken(file: string): string {
  let text: string;
  try {
    text = readFileSync(file, "utf8").trim();
  } catch (cause) {
    throw configError(
      `join token file ${file} cannot be read; create it with: openssl rand -hex 32 > ${file}`,
      { cause },
    );
  }
  if (!/^[\x21-\x7e]{16,256}$/.test(text)) {
    throw configError(
      `join token in ${file}: expected 16 to 256 printable characters, got ${text.length}; create one with: openssl rand -hex 32`,
    );
  }
  if (process.platform !== "win32" && (statSync(file).mode & 0o007) !== 0) {
    throw configError(`join token file ${file} is readable by every user; run: chmod 600 ${file}`);
  }
  return text;
}

export function writeNewToken(file: string): string {
  const token = randomBytes(32).toString("hex");
  writeFileSync(file, token + "\n", { mode: 0o600 });
  return token;
}

/** Adds the token to every call of a client. */
export function tokenInterceptor(token: string): grpc.Interceptor {
  return (options, nextCall) =>
    new grpc.InterceptingCall(nextCall(options), {
      start(metadata, listener, next) {
        metadata.set(HEADER, `Bearer ${token}`);
        next(metadata, listener);
      },
    });
}

/** Refuses calls without the token. Runs on headers alone, before any message of the call is looked at. */
export function requireToken(token: string, onRefused: (method: string) => void): grpc.ServerInterceptor {
  const expected = Buffer.from(`Bearer ${token}`);
  return (method, call) =>
    new grpc.ServerInterceptingCall(call, {
      start(next) {
        next({
          onReceiveMetadata(metadata, nextMetadata) {
            const got = Buffer.from(String(metadata.get(HEADER)[0] ?? ""));
            if (got.length === expected.length && timingSafeEqual(got, expected)) {
              nextMetadata(metadata);
              return;
            }
            onRefused(method.path);
            call.sendStatus({
              code: grpc.status.UNAUTHENTICATED,
              details: "join token missing or wrong; start the worker with the coordinator's --token-file",
            });
          },
        });
      },
    });
}

export const isLoopback = (host: string): boolean => /^(127(\.\d+){3}|::1|\[::1\]|localhost)$/.test(host);

/** Refuses to open a port to strangers by accident. */
export function checkListenAddress(host: string, hasToken: boolean, isInsecure: boolean): void {
  if (isLoopback(host)) return;
  if (!hasToken) {
    throw new TroupeError(
      "CONFIG",
      `cluster.host ${host} is reachable from other machines and needs a join token: pass --token-file FILE (create one with: openssl rand -hex 32 > FILE; chmod 600 FILE), or listen on 127.0.0.1`,
    );
  }
  if (!isInsecure) {
    throw new TroupeError(
      "CONFIG",
      `cluster.host ${host} is reachable from other machines and traffic is not encrypted: pass --insecure to accept that on a private network, or listen on 127.0.0.1`,
    );
  }
}
