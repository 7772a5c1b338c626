import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { JoinTokens, callerRoles, checkListenAddress } from "../../../src/rpc/auth.js";
import { isLoopback } from "../../../src/shared/loopback.js";
import { TroupeError } from "../../../src/shared/errors.js";

let folder: string;
beforeAll(() => (folder = mkdtempSync(join(tmpdir(), "troupe-auth-"))));
afterAll(() => rmSync(folder, { recursive: true }));

const A = "0123456789abcdef".repeat(4);
const B = "fedcba9876543210".repeat(4);

function tokens(text: string, mode = 0o600): JoinTokens {
  const file = join(folder, "token");
  writeFileSync(file, text);
  chmodSync(file, mode);
  return JoinTokens.read(file);
}

function refused(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(TroupeError);
    expect((error as TroupeError).code).toBe("CONFIG");
    return (error as Error).message;
  }
  throw new Error("expected it to be refused");
}

describe("a token file", () => {
  test.each([A, `${A}\n`, `  ${A}\r\n`, `# of run 7\n\n${A}\n`])(
    "with one token is good for every role",
    (text) => {
      const file = tokens(text);
      expect(file.rolesOf(A)).toEqual(["rollout", "learner", "control"]);
      expect(file.forRole("learner")).toBe(A);
      expect(file.secrets).toEqual([A]);
    },
  );

  test("with lines per role gives each token its own role only", () => {
    const file = tokens(`rollout ${A}\nlearner\t${B}\n`);
    expect(file.rolesOf(A)).toEqual(["rollout"]);
    expect(file.rolesOf(B)).toEqual(["learner"]);
    expect(file.forRole("rollout")).toBe(A);
    expect(refused(() => file.forRole("control"))).toMatch(/no control token.*"control TOKEN"/);
  });

  test("may hold two tokens of one role, so that one can be replaced while a run goes on", () => {
    const file = tokens(`rollout ${A}\nrollout ${B}\n`);
    expect(file.forRole("rollout")).toBe(A);
    expect([file.rolesOf(A), file.rolesOf(B)]).toEqual([["rollout"], ["rollout"]]);
  });

  test("and one token for two roles", () => {
    expect(tokens(`rollout ${A}\nlearner ${A}\n`).rolesOf(A)).toEqual(["rollout", "learner"]);
  });

  test("takes nothing else for its token: not a part, not more, not another case, not nothing", () => {
    const file = tokens(A);
    for (const wrong of ["", A.slice(1), A.slice(0, -1), `${A}0`, A.toUpperCase(), ` ${A}`, B])
      expect(file.rolesOf(wrong)).toEqual([]);
  });

  test.each([
    ["", /is empty/],
    ["# only a comment\n", /is empty/],
    ["short\n", /line 1: expected 16 to 256 printable/],
    [`${A}\n${B}\n`, /line 1: expected one token, or lines "ROLE TOKEN"/],
    [`rollout ${A}\n${B}\n`, /line 2/],
    [`admin ${A}\n`, /rollout, learner, control/],
    [`rollout ${A} extra\n`, /line 1/],
    [`rollout\n${A}\n`, /line 1/],
    [
      "learner \u00e4\u00f6\u00fc\u00e4\u00f6\u00fc\u00e4\u00f6\u00fc\u00e4\u00f6\u00fc\u00e4\u00f6\u00fc\u00e4\n",
      /printable/,
    ],
  ])("that is no token file is refused: %j", (text, reason) => {
    const message = refused(() => tokens(text));
    expect(message).toMatch(reason);
    expect(message).not.toContain(A);
    expect(message).not.toContain(B);
  });

  test("that everybody can read is refused, and one that is missing says how to make it", () => {
    expect(refused(() => tokens(A, 0o644))).toMatch(/chmod 600/);
    expect(tokens(A, 0o640).secrets).toEqual([A]);
    expect(refused(() => JoinTokens.read(join(folder, "none")))).toMatch(/openssl rand -hex 32 >/);
  });
});

test("a call that did not come through the guard has no role", () => {
  expect(callerRoles(new grpc.Metadata())).toEqual([]);
});

describe("listening", () => {
  const none = { hasToken: false, hasTls: false, isInsecure: false };
  test.each(["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"])("on %s needs nothing", (host) => {
    expect(isLoopback(host)).toBe(true);
    checkListenAddress(host, none);
  });

  test.each(["0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "127.0.0.1.example.org", "localhost.example.org", ""])(
    "on %j needs a token, and TLS or consent",
    (host) => {
      expect(refused(() => checkListenAddress(host, none))).toMatch(/--token-file/);
      expect(refused(() => checkListenAddress(host, { ...none, hasTls: true }))).toMatch(/--token-file/);
      expect(refused(() => checkListenAddress(host, { ...none, hasToken: true }))).toMatch(
        /--tls-cert and --tls-key.*--insecure/,
      );
      checkListenAddress(host, { ...none, hasToken: true, hasTls: true });
      checkListenAddress(host, { ...none, hasToken: true, isInsecure: true });
    },
  );
});
