import * as grpc from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { status } from "../../../src/coordinator/core/index.js";
import { ledgerOf } from "../../../src/coordinator/ledger-view.js";
import { encodeExperience } from "../../../src/rpc/codec/experience-bytes.js";
import { METHOD_RULES } from "../../../src/rpc/method-rules.js";
import { PROTOCOL_VERSION, troupe } from "../../../src/rpc/load-proto.js";
import { everyMethod, methodsInProtoFiles } from "./every-method.js";
import { mutate, randomFrom } from "./mutate.js";
import { RUN_ID, RawClient, startRealCoordinator, type RealCoordinator } from "./real-coordinator.js";

const { Membership, RolloutService, LearnerService, ArtifactService, ControlService } = troupe.v1;

/** For calls that are answered; the machine may be busy. */
const PATIENCE_MS = 20_000;

let coordinator: RealCoordinator;
let client: RawClient;
beforeEach(async () => {
  coordinator = await startRealCoordinator();
  client = new RawClient(coordinator.address);
});
afterEach(async () => {
  client.close();
  await coordinator.close();
});

interface Sender {
  runId: string;
  epoch: number;
  workerId: string;
  incarnation: number;
}

async function register(role: "ROLE_ROLLOUT" | "ROLE_LEARNER", workerId: string): Promise<Sender> {
  const { Register } = Membership.service;
  const request = {
    role,
    workerId,
    host: "h",
    pid: 1,
    metricsAddress: "h:1",
    protocolVersion: PROTOCOL_VERSION,
    requestId: `${Math.random()}`,
  };
  const bytes = Register.requestSerialize(request);
  const { code, details, replies } = await client.call(Register.path, [bytes], PATIENCE_MS);
  expect({ code, details }).toMatchObject({ code: grpc.status.OK });
  const { sender } = Register.responseDeserialize(replies[0]) as { sender: Sender };
  expect(sender).toMatchObject({ runId: RUN_ID, workerId });
  return sender;
}

const floats = (...values: number[]) => Buffer.from(Float32Array.from(values).buffer);

/** What a worker that was given the task would send for one of its prompts. */
const experience = (promptIndex: number) =>
  encodeExperience("collect/0#0", 1, {
    experienceId: `0/${promptIndex}/0`,
    promptIndex,
    sampleIndex: 0,
    policyVersion: 0,
    promptIds: Int32Array.of(1, 2, 3),
    responseIds: Int32Array.of(4, 5),
    logprobs: Float32Array.of(-1, -2),
    refLogprobs: Float32Array.of(-1, -2),
    values: Float32Array.of(0.5, 0.25),
    score: 1,
    finishReason: "eos",
  });

/** Valid messages of every method, as one worker would send them: what mutation starts from. */
function seedsOf(rollout: Sender, learner: Sender): Record<string, Buffer[]> {
  const from = (service: grpc.ServiceDefinition, name: string, messages: object[]): [string, Buffer[]] => {
    const method = (service as Record<string, grpc.MethodDefinition<object, object>>)[name];
    const seeds = messages.map((message) => {
      const bytes = method.requestSerialize(message);
      // A field that the contract does not know would be left out in silence, and with it what it was to test.
      const known = method.requestDeserialize(bytes) as Record<string, unknown>;
      for (const field of Object.keys(message))
        expect(known[field] ?? null, `${name}: ${field}`).not.toBeNull();
      return bytes;
    });
    return [method.path, seeds];
  };
  const ref = { name: "actor/1", sizeBytes: 4, sha256: "0".repeat(64), localPath: "/etc/passwd" };
  const rows = { nll: Buffer.from(Float64Array.of(1, 2).buffer) };
  return Object.fromEntries([
    from(Membership.service, "Register", [
      {
        role: "ROLE_ROLLOUT",
        workerId: "rollout-1",
        host: "h",
        pid: 1,
        metricsAddress: "h:1",
        protocolVersion: PROTOCOL_VERSION,
        requestId: "r",
      },
      {
        role: "ROLE_LEARNER",
        workerId: "learner-1",
        protocolVersion: PROTOCOL_VERSION,
        requestId: "q",
        position: { stage: "ppo", step: 3 },
      },
    ]),
    from(Membership.service, "Heartbeat", [
      { sender: rollout, policyVersion: 0, tasks: [{ taskId: "collect/0#0", attempt: 1, tokens: 3 }] },
      { sender: learner, appliedStep: 0 },
    ]),
    from(Membership.service, "Leave", [{ sender: rollout, reason: "drained" }]),
    from(RolloutService.service, "Perform", [
      { sender: rollout, ready: { credits: 2 } },
      { sender: rollout, experiences: { experiences: [experience(0)] } },
      { sender: rollout, experiences: { experiences: [1, 2, 3].map(experience) } },
      { sender: rollout, done: { taskId: "collect/0#0", attempt: 1, generateMs: 1, scoreMs: NaN } },
      { sender: rollout, failed: { taskId: "collect/0#0", attempt: 1, errorCode: "DATA", message: "m" } },
      { sender: rollout, draining: {} },
    ]),
    from(LearnerService.service, "Perform", [
      { sender: learner, hello: {} },
      { sender: learner, requestId: 1, setupDone: { healId: 1, appliedStep: 0, parameterCount: 10 } },
      {
        sender: learner,
        vote: {
          generation: 1,
          step: 1,
          isFinite: true,
          gradientHash: 7,
          stats: [{ shard: 0, sums: { loss: NaN } }],
          computeMs: Infinity,
        },
      },
      { sender: learner, applied: { step: 1, stage: "ppo", gradientNorms: { actor: 1 } } },
      { sender: learner, requestId: 2, evaluated: { rows } },
      { sender: learner, requestId: 3, published: { artifacts: [ref], stateSha256: "x" } },
      { sender: learner, failure: { errorCode: "__proto__", message: "m" } },
      { sender: learner, behind: { generation: 1, appliedStep: 0 } },
    ]),
    from(LearnerService.service, "AllReduce", [
      {
        header: {
          sender: learner,
          generation: 1,
          step: 1,
          nodes: [{ level: 0, index: 0 }],
          elementCount: 4,
          bucketElements: 4,
        },
      },
      { bucket: { node: 0, bucket: 0, values: floats(1, 2, 3, 4) } },
    ]),
    from(ArtifactService.service, "Fetch", [{ sender: learner, name: "actor/1" }]),
    from(ArtifactService.service, "Publish", [{ sender: learner, ref }, { data: floats(1) }]),
    from(ControlService.service, "Status", [{}]),
    from(ControlService.service, "Scale", [{ role: "rollout", count: 3 }]),
    from(ControlService.service, "Watch", [{}]),
    from(ControlService.service, "Stop", [{ reason: "r" }]),
  ]);
}

/** Everything a wrong message must leave alone. */
function stateOf({ host, log }: RealCoordinator): unknown {
  return structuredClone({
    durable: host.state.durable,
    members: status(host.state).members.map(({ leaseLeftMs: _, ...rest }) => rest),
    log: log.recoverNow(),
  });
}

/** The first seed with an experience, as it is: taken, so what is made of it and the others gets as far as it can. */
async function admitOne(): Promise<void> {
  const { Perform } = RolloutService.service;
  const sender = await register("ROLE_ROLLOUT", "rollout-0");
  const [ready, one] = seedsOf(sender, sender)[Perform.path];
  await client.call(Perform.path, [ready, one], PATIENCE_MS);
  await coordinator.host.settled();
  expect(coordinator.host.state.durable.counts.admitted).toBe(1);
}

/** 12 methods × 24 rounds × 40 calls of one to a few messages: 11,520 calls. */
const ROUNDS = 24;
const AT_ONCE = 40;

describe("mutated messages", () => {
  const paths = methodsInProtoFiles();

  test("every method of the contract has seeds", () => {
    const anybody = { runId: RUN_ID, epoch: 1, workerId: "w", incarnation: 1 };
    expect(Object.keys(seedsOf(anybody, anybody)).sort()).toEqual([...paths].sort());
  });

  test.each(paths)("%s: each gets a status, the process lives, the ledger balances", async (path) => {
    const random = randomFrom(paths.indexOf(path) + 1);
    const { host, dispatcher } = coordinator;
    // Work that mutated results may hit: 4 prompts nobody will answer properly.
    const ended = new AbortController();
    const prompts = [0, 1, 2, 3].map((i) => ({
      experienceId: `0/${i}/0`,
      promptIndex: i,
      sampleIndex: 0,
      promptIds: Int32Array.of(1, 2, 3),
    }));
    host.dispatch({ type: "StageStarted", stage: "ppo" });
    host.dispatch({ type: "VersionPublished", policyVersion: 0, sha256: "v0" });
    const brief = {
      models: () => [],
      tokenizer: { vocabularySize: 9, eosIds: [0], padId: 0 },
      sampling: {},
      score: true,
      vocabularySize: 9,
    };
    const collected = dispatcher.collect(0, prompts as never, 0, brief, ended.signal).catch(() => undefined);
    if (path === RolloutService.service.Perform.path) await admitOne();
    const codes = new Set<grpc.status>();
    // Each of these is a reset stream; a connection with too many of them is closed, as it should be.
    const rounds = path.endsWith("/Watch") ? 4 : ROUNDS;
    for (let round = 0; round < rounds; round++) {
      // A mutant that is still valid may have sent the worker away, or replaced it.
      const seeds = seedsOf(
        await register("ROLE_ROLLOUT", "rollout-0"),
        await register("ROLE_LEARNER", "learner-0"),
      )[path];
      const answers = await Promise.all(
        Array.from({ length: AT_ONCE }, () => {
          const valid = seeds.filter(() => random() < 0.4);
          const mutants = seeds.filter(() => random() < 0.6).map((seed) => mutate(seed, random));
          // Streams that stay open are given up after a moment.
          return client.call(
            path,
            [...valid.slice(0, 2), ...mutants],
            path.endsWith("/Watch") ? 30 : PATIENCE_MS,
          );
        }),
      );
      for (const { code } of answers) codes.add(code);
    }
    await host.settled();
    expect(coordinator.failures).toEqual([]);
    // A stream that is left waiting would be one that nobody ends any more; Watch is endless by intent.
    if (!path.endsWith("/Watch")) expect([...codes]).not.toContain(grpc.status.DEADLINE_EXCEEDED);
    // Our own mistakes are INTERNAL or UNKNOWN: a message, whatever it holds, is the sender's.
    expect([...codes]).not.toContain(grpc.status.INTERNAL);
    expect([...codes]).not.toContain(grpc.status.UNKNOWN);
    const { admitted, trained, dropped, buffered } = ledgerOf(status(host.state).ledger);
    expect(admitted).toBe(trained + dropped + buffered);
    expect(admitted).toBeLessThanOrEqual(prompts.length);
    expect(({} as Record<string, unknown>)["foo"]).toBeUndefined();
    // And honest callers are served as before.
    await register("ROLE_ROLLOUT", "rollout-2");
    ended.abort();
    await collected;
  });

  test("that do not decode change nothing at all", async () => {
    const learner = await register("ROLE_LEARNER", "learner-0");
    const before = stateOf(coordinator);
    const seeds = seedsOf(await register("ROLE_ROLLOUT", "rollout-0"), learner);
    const random = randomFrom(99);
    const whole = stateOf(coordinator);
    let refused = 0;
    for (const [path, messages] of Object.entries(seeds)) {
      const method = everyMethod().find((one) => one.path === path) as grpc.MethodDefinition<object, object>;
      const broken: Buffer[] = [];
      while (broken.length < 60) {
        const mutant = mutate(messages[broken.length % messages.length], random);
        try {
          method.requestDeserialize(mutant);
        } catch {
          broken.push(mutant);
        }
      }
      const answers = await Promise.all(broken.map((message) => client.call(path, [message])));
      for (const { code, details } of answers) {
        expect(code).toBe(grpc.status.INVALID_ARGUMENT);
        expect(details).toContain(`${path}: the message does not decode`);
        refused += 1;
      }
    }
    expect(refused).toBe(60 * Object.keys(seeds).length);
    expect(before).not.toEqual(whole); // the check sees a change when there is one
    expect(stateOf(coordinator)).toEqual(whole);
    expect(coordinator.stops).toEqual([]);
  });
});

describe("messages that are too large", () => {
  test.each(methodsInProtoFiles())("%s refuses them before decoding", async (path) => {
    const limit = METHOD_RULES[path].maxRequestBytes;
    // An unknown field of the right length: it would decode.
    const message = Buffer.alloc(limit + 1);
    const length = limit + 1 - 6;
    message.set([
      0x82,
      0x7d,
      0x80 | (length & 0x7f),
      0x80 | ((length >> 7) & 0x7f),
      0x80 | ((length >> 14) & 0x7f),
      length >> 21,
    ]);
    const { code, details } = await client.call(path, [message], 10_000);
    expect(code).toBe(grpc.status.RESOURCE_EXHAUSTED);
    expect(details).toMatch(new RegExp(`${limit}`));
    const patience = path.endsWith("/Watch") ? 200 : 10_000;
    const { code: codeAtLimit } = await client.call(path, [message.subarray(0, 6 + 100)], patience);
    expect(codeAtLimit).not.toBe(grpc.status.RESOURCE_EXHAUSTED);
  });

  test("compressed ones are measured as what they become", async () => {
    const zipping = new RawClient(coordinator.address, undefined, undefined, {
      "grpc.default_compression_algorithm": 2,
    });
    for (const bytes of [1 << 20, 40 << 20]) {
      const { code } = await zipping.call("/troupe.v1.ControlService/Stop", [Buffer.alloc(bytes)], 10_000);
      expect(code).toBe(grpc.status.RESOURCE_EXHAUSTED);
    }
    zipping.close();
    expect(coordinator.stops).toEqual([]);
  });
});
