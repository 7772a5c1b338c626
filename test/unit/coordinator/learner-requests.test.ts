import { expect, it } from "vitest";
import { LearnerRequests } from "../../../src/coordinator/learner-requests.js";
import type { StreamRegistry } from "../../../src/coordinator/stream-registry.js";
import type { LearnerDirective } from "../../../src/rpc/generated/troupe/v1/LearnerDirective.js";
import type { LearnerMessage__Output } from "../../../src/rpc/generated/troupe/v1/LearnerMessage.js";
import { EXIT_CODES, errorCodeOf } from "../../../src/shared/errors.js";

const never = new AbortController().signal;
const ASKED = { workerId: "learner-0", incarnation: 7 };

function ask() {
  const sent: LearnerDirective[] = [];
  const streams = {
    send: (_: string, directive: LearnerDirective) => sent.push(directive) > 0,
    incarnationOf: () => ASKED.incarnation,
  };
  const requests = new LearnerRequests(streams as unknown as StreamRegistry<LearnerDirective>);
  const reply = requests.ask("learner-0", { evaluate: { shards: [] } }, never);
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
