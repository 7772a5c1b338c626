/**
 * Who calls: join tokens and what they allow. A token is 32 random bytes in hex, in a file only its owner can read;
 * workers and tools send it with every call, and the server decides on the headers alone, before it reads a message.
 * Loopback listeners may run without tokens; then every caller may be everything.
 *
 * A token file holds either one token, good for all roles, or lines `ROLE TOKEN` (ROLE: rollout, learner, control). Two
 * lines of one role are both valid, which is how a token is replaced while a run goes on.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import * as grpc from "@grpc/grpc-js";
import { configError, TroupeError } from "../shared/errors.js";
import { isLoopback } from "../shared/loopback.js";
import { CALLER_ROLES, METHOD_RULES, type CallerRole } from "./method-rules.js";
import { RefusedRequest } from "./request-limits.js";
import { errorMetadata } from "./status.js";

const HEADER = "authorization";
/** Set by the server for its handlers, whatever the caller sent under this name. */
const ROLES_KEY = "troupe-caller-roles";
const NEW_TOKEN = "openssl rand -hex 32";

interface Entry {
  readonly roles: readonly CallerRole[];
  readonly token: string;
  readonly digest: Buffer;
}

export class JoinTokens {
  private constructor(
    private readonly file: string,
    private readonly entries: readonly Entry[],
  ) {}

  /** @throws {TroupeError} CONFIG when the file cannot be read, is readable by everybody, or holds something else */
  static read(file: string): JoinTokens {
    let text: string;
    try {
      text = readFileSync(file, "utf8");
    } catch (cause) {
      throw configError(`join token file ${file} cannot be read; create it with: ${NEW_TOKEN} > ${file}`, {
        cause,
      });
    }
    if (process.platform !== "win32" && (statSync(file).mode & 0o007) !== 0)
      throw configError(`join token file ${file} is readable by every user; run: chmod 600 ${file}`);
    const lines = text
      .split(/\r?\n/)
      .map((line, i) => ({ number: i + 1, words: line.trim().split(/\s+/) }))
      .filter(({ words }) => words[0] !== "" && !words[0].startsWith("#"));
    if (lines.length === 1 && lines[0].words.length === 1)
      return new JoinTokens(file, [entryOf(file, 1, CALLER_ROLES, lines[0].words[0])]);
    if (lines.length === 0)
      throw configError(`join token file ${file} is empty; create one with: ${NEW_TOKEN} > ${file}`);
    return new JoinTokens(
      file,
      lines.map(({ number, words: [role, token, ...rest] }) => {
        if (!isCallerRole(role) || token === undefined || rest.length > 0)
          throw configError(
            `join token file ${file}, line ${number}: expected one token, or lines "ROLE TOKEN" with ROLE one of ${CALLER_ROLES.join(", ")}`,
          );
        return entryOf(file, number, [role], token);
      }),
    );
  }

  /** The token a process of this role sends. @throws {TroupeError} CONFIG when the file has none for it */
  forRole(role: CallerRole): string {
    const entry = this.entries.find(({ roles }) => roles.includes(role));
    if (entry === undefined)
      throw configError(`join token file ${this.file} holds no ${role} token; add a line "${role} TOKEN"`);
    return entry.token;
  }

  /** What the holder of a token may be; nobody for a wrong one. Takes the same time whatever is presented. */
  rolesOf(presented: string): readonly CallerRole[] {
    const digest = digestOf(presented);
    const matching = this.entries.filter((entry) => timingSafeEqual(entry.digest, digest));
    return CALLER_ROLES.filter((role) => matching.some(({ roles }) => roles.includes(role)));
  }

  /** Every token of the file, for a log that must not show them. */
  get secrets(): readonly string[] {
    return this.entries.map(({ token }) => token);
  }
}

const isCallerRole = (text: string): text is CallerRole => (CALLER_ROLES as readonly string[]).includes(text);

const digestOf = (token: string): Buffer => createHash("sha256").update(token).digest();

function entryOf(file: string, line: number, roles: readonly CallerRole[], token: string): Entry {
  if (!/^[\x21-\x7e]{16,256}$/.test(token)) {
    throw configError(
      `join token file ${file}, line ${line}: expected 16 to 256 printable characters, got ${token.length}; create one with: ${NEW_TOKEN}`,
    );
  }
  return { roles, token, digest: digestOf(token) };
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

export interface Refusal {
  readonly method: string;
  /** No token, a token nobody has, or the token of a role that may not call this. */
  readonly reason: "missing" | "invalid" | "role";
  /** address:port */
  readonly peer: string;
}

export interface GuardOptions {
  /** Undefined: a loopback listener without tokens. */
  readonly tokens: JoinTokens | undefined;
  readonly onRefused: (refusal: Refusal) => void;
  /** Every call once, when its status is sent; a call the peer gave up has none. */
  readonly onAnswered?: (method: string, code: grpc.status, seconds: number) => void;
}

/**
 * Lets a call through when its token allows the method, and tells the handlers who calls (see `callerRoles`). Also
 * answers for messages that request-limits.ts refused.
 */
export function guardCalls({ tokens, onRefused, onAnswered }: GuardOptions): grpc.ServerInterceptor {
  return ({ path }, call) => {
    const startedMs = performance.now();
    // Of a stream that is refused midway the handler hears a moment later; what it still says would break the answer.
    let isRefused = false;
    const noteAnswer = (code: grpc.status) =>
      onAnswered?.(path, code, (performance.now() - startedMs) / 1000);
    const refuseWith = (status: grpc.StatusObject) => {
      if (isRefused) return;
      isRefused = true;
      noteAnswer(status.code);
      call.sendStatus(status);
    };
    const refuse = (reason: Refusal["reason"], code: grpc.status, details: string) => {
      onRefused({ method: path, reason, peer: call.getPeer() });
      refuseWith({ code, details, metadata: errorMetadata("AUTH") });
    };
    return new grpc.ServerInterceptingCall(call, {
      sendMessage(message, next) {
        if (!isRefused) next(message);
      },
      sendStatus(status, next) {
        if (isRefused) return;
        noteAnswer(status.code as grpc.status);
        next(status);
      },
      start(next) {
        next({
          onReceiveMetadata(metadata, nextMetadata) {
            const presented = bearerOf(metadata);
            const roles = tokens === undefined ? CALLER_ROLES : tokens.rolesOf(presented ?? "");
            const allowed = METHOD_RULES[path]?.roles ?? [];
            if (tokens !== undefined && presented === undefined) {
              const help = "join token missing; pass the coordinator's --token-file";
              return refuse("missing", grpc.status.UNAUTHENTICATED, help);
            }
            if (roles.length === 0) {
              const help = "join token wrong; pass the --token-file of this coordinator";
              return refuse("invalid", grpc.status.UNAUTHENTICATED, help);
            }
            if (!roles.some((role) => allowed.includes(role))) {
              const help = `${path} takes a token of ${allowed.join(" or ") || "nobody"}, this one is of ${roles.join(", ")}`;
              return refuse("role", grpc.status.PERMISSION_DENIED, help);
            }
            metadata.remove(HEADER);
            metadata.set(ROLES_KEY, roles.join(","));
            nextMetadata(metadata);
          },
          onReceiveMessage(message, nextMessage) {
            if (message instanceof RefusedRequest) refuseWith(message.status);
            else if (!isRefused) nextMessage(message);
          },
        });
      },
    });
  };
}

function bearerOf(metadata: grpc.Metadata): string | undefined {
  const value = metadata.get(HEADER)[0];
  return value === undefined ? undefined : String(value).replace(/^Bearer /, "");
}

/** What the caller's token allows it to be; nothing when the call did not come through `guardCalls`. */
export const callerRoles = (metadata: grpc.Metadata): readonly CallerRole[] =>
  String(metadata.get(ROLES_KEY)[0] ?? "")
    .split(",")
    .filter(isCallerRole);

/** Refuses to open a port to strangers by accident. */
export function checkListenAddress(
  host: string,
  { hasToken, hasTls, isInsecure }: { hasToken: boolean; hasTls: boolean; isInsecure: boolean },
): void {
  if (isLoopback(host)) return;
  if (!hasToken) {
    throw new TroupeError(
      "CONFIG",
      `cluster.host ${host} is reachable from other machines and needs a join token: pass --token-file FILE (create one with: ${NEW_TOKEN} > FILE; chmod 600 FILE), or listen on 127.0.0.1`,
    );
  }
  if (!hasTls && !isInsecure) {
    throw new TroupeError(
      "CONFIG",
      `cluster.host ${host} is reachable from other machines and traffic is not encrypted: pass --tls-cert and --tls-key (make them with: troupe certs init DIR --host NAME), pass --insecure to accept that on a private network, or listen on 127.0.0.1`,
    );
  }
}
