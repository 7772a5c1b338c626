import { expect, it } from "vitest";
import { LearnerRequests, type SilentLearner } from "../../../src/coordinator/learner-requests.js";
import type { StreamRegistry } from "../../../src/coordinator/stream-registry.js";
import type { LearnerDirective } from "../../../src/rpc/generated/troupe/v1/LearnerDirective.js";
import type { LearnerMessage__Output } from "../../../src/rpc/generated/troupe/v1/LearnerMessage.js";
import { EXIT_CODES, errorCodeOf } from "../../../src/shared/errors.js";

const PATIENCE = { limitMs: 60_000 };
const ASKED = { workerId: "learner-0", incarnation: 7 };

function ask() {
  const sent: LearnerDirective[] = [];
  const streams = {
    send: (_: string, directive: LearnerDirective) => sent.push(directive) > 0,
    incarnationOf: () => ASKED.incarnation,
  };
  const requests = new LearnerRequests(
    streams as unknown as StreamRegistry<LearnerDirective>,
    () => undefined,
  );
  const reply = requests.ask("learner-0", { evaluate: { shards: [] } }, PATIENCE);
  const answer = (message: object) =>
    ({ requestId: sent[0].requestId, ...message }) as LearnerMessage__Output;
  return { requests, reply, answer };
}

it("an answer counts only from the process that was asked", async () => {
  const { requests, reply, answer } = ask();
  for (const from of [
    { ...ASKED, workerId: "learner-1" },
    { ...ASKED, incarnation: 6 },
    { ...ASKED, incarnation: 8 },
  ])
    expect(requests.settle(answer({ failure: { errorCode: "DATA", message: "no" } }), from)).toBe(true);
  const evaluated = { rows: {} };
  expect(requests.settle(answer({ evaluated }), ASKED)).toBe(true);
  expect(await reply).toMatchObject({ evaluated });
});

it("a failure has a code that this release knows, whatever was sent", async () => {
  for (const [sent, code] of [
    ["STORAGE", "STORAGE"],
    ["OF_THE_FUTURE", "INTERNAL"],
    ["toString", "INTERNAL"],
  ]) {
    const { requests, reply, answer } = ask();
    const error = reply.catch((cause: unknown) => cause);
    requests.settle(answer({ failure: { errorCode: sent, message: "no" } }), ASKED);
    expect(errorCodeOf(await error)).toBe(code);
    expect(EXIT_CODES[errorCodeOf(await error)]).toBeGreaterThan(0);
  }
});

function connected(...workerIds: string[]) {
  const sent: LearnerDirective[] = [];
  const silent: SilentLearner[] = [];
  const streams = {
    incarnationOf: (workerId: string) => (workerIds.includes(workerId) ? 7 : undefined),
    send: (workerId: string, directive: LearnerDirective) => {
      sent.push(directive);
      return workerIds.includes(workerId);
    },
  } as unknown as StreamRegistry<LearnerDirective>;
  return { sent, silent, requests: new LearnerRequests(streams, (one) => silent.push(one)) };
}

it("a learner that does not answer in time is told of once, and asked no more", async () => {
  const { requests, silent } = connected("l1");
  await expect(requests.ask("l1", { publish: { items: [] } }, { limitMs: 5 })).rejects.toMatchObject({
    code: "UNREACHABLE",
    message: 'l1: no answer to "publish" within 0.005 s',
  });
  expect(silent).toEqual([
    { workerId: "l1", incarnation: 7, reason: 'no answer to "publish" within 0.005 s' },
  ]);
  requests.forget("l1");
  expect(silent).toHaveLength(1);
});

it.each(["answers", "is gone", "was never there", "is wanted no more"])(
  "a learner that %s is not told of as silent",
  async (what) => {
    const { requests, silent, sent } = connected("l1");
    const stopping = new AbortController();
    const workerId = what === "was never there" ? "l2" : "l1";
    const answer = requests.ask(workerId, { evaluate: {} }, { limitMs: 20, signal: stopping.signal });
    const settled = answer.catch(() => undefined);
    if (what === "answers")
      requests.settle({ requestId: sent[0].requestId, evaluated: {} } as never, {
        workerId: "l1",
        incarnation: 7,
      });
    if (what === "is gone") requests.forget("l1");
    if (what === "is wanted no more") stopping.abort();
    await settled;
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(silent).toEqual([]);
  },
);
