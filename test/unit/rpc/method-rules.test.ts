import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { JoinTokens } from "../../../src/rpc/auth.js";
import { CALLER_ROLES, METHOD_RULES } from "../../../src/rpc/method-rules.js";
import { GuardedServer } from "../../../src/rpc/server.js";
import { everyMethod, methodsInProtoFiles } from "./every-method.js";
import { RawClient, startRealCoordinator, type RealCoordinator } from "./real-coordinator.js";

const TOKENS = { rollout: "a".repeat(64), learner: "b".repeat(64), control: "c".repeat(64) } as const;
const paths = everyMethod().map(({ path }) => path);

let folder: string;
let coordinator: RealCoordinator;
const clients = new Map<string, RawClient>();

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "troupe-token-"));
  const file = join(folder, "token");
  writeFileSync(file, CALLER_ROLES.map((role) => `${role} ${TOKENS[role]}\n`).join(""), { mode: 0o600 });
  coordinator = await startRealCoordinator({ tokens: JoinTokens.read(file) });
  clients.set("missing", new RawClient(coordinator.address));
  clients.set("invalid", new RawClient(coordinator.address, "d".repeat(64)));
  for (const role of CALLER_ROLES) clients.set(role, new RawClient(coordinator.address, TOKENS[role]));
});

afterAll(async () => {
  for (const client of clients.values()) client.close();
  await coordinator.close();
  rmSync(folder, { recursive: true });
});

test("every method of the contract, health and reflection has a rule, and every rule a method", () => {
  for (const path of methodsInProtoFiles()) expect(paths).toContain(path);
  expect(paths.length).toBeGreaterThan(methodsInProtoFiles().length);
  expect(Object.keys(METHOD_RULES).sort()).toEqual([...paths].sort());
});

test("a service with a method that nobody gave a rule cannot be added", () => {
  const [method] = everyMethod();
  const server = new GuardedServer();
  const service = { New: { ...method, path: "/troupe.v1.Membership/New" } };
  expect(() => server.addService(service, { New: () => undefined })).toThrow("/troupe.v1.Membership/New");
});

/** Undecodable: a call that got as far as its message would be answered INVALID_ARGUMENT, or not at all. */
const GARBAGE = Buffer.from([0xff, 0xff, 0xff]);

describe.each(paths)("%s", (path) => {
  test.each(["missing", "invalid"] as const)("without a token that exists: %s", async (kind) => {
    coordinator.refusals.length = 0;
    const { code, replies } = await (clients.get(kind) as RawClient).call(path, [GARBAGE]);
    expect(code).toBe(grpc.status.UNAUTHENTICATED);
    expect(replies).toEqual([]);
    expect(coordinator.refusals).toMatchObject([{ method: path, reason: kind }]);
  });

  test.each(CALLER_ROLES)("with the %s token", async (role) => {
    coordinator.refusals.length = 0;
    const { code } = await (clients.get(role) as RawClient).call(path, [GARBAGE]);
    const isAllowed = METHOD_RULES[path].roles.includes(role);
    expect(code).toBe(isAllowed ? grpc.status.INVALID_ARGUMENT : grpc.status.PERMISSION_DENIED);
    expect(coordinator.refusals).toMatchObject(isAllowed ? [] : [{ method: path, reason: "role" }]);
  });

  test("is decided before the message arrives", async () => {
    const { code } = await (clients.get("invalid") as RawClient).call(path, []);
    expect(code).toBe(grpc.status.UNAUTHENTICATED);
  });

  test("a caller cannot name its own roles", async () => {
    const forged = new grpc.Metadata();
    forged.set("troupe-caller-roles", CALLER_ROLES.join(","));
    for (const role of CALLER_ROLES) {
      if (METHOD_RULES[path].roles.includes(role)) continue;
      const { code } = await (clients.get(role) as RawClient).call(path, [GARBAGE], 2_000, forged);
      expect(code).toBe(grpc.status.PERMISSION_DENIED);
    }
  });
});
