import { Duplex } from "node:stream";
import { expect, it } from "vitest";
import { configSchema } from "../../../src/config/schema.js";
import { createLogger } from "../../../src/observability/logger.js";
import { createMetrics } from "../../../src/observability/metrics.js";
import { decodeExperience } from "../../../src/rpc/codec/experience-bytes.js";
import type { RolloutTask } from "../../../src/rollout/rollout-compute.js";
import { RolloutSession } from "../../../src/rollout/rollout-session.js";
import { RolloutState } from "../../../src/rollout/rollout-state.js";
import { noteAdvance, throwIfCancelled } from "../../../src/rollout/task-signals.js";
import type { RolloutMessage } from "../../../src/rpc/generated/troupe/v1/RolloutMessage.js";
import { makeDeferred, type Deferred } from "../../../src/shared/abort.js";
import type { Session } from "../../../src/worker/coordinator-link.js";

const settle = () => new Promise((resolve) => setTimeout(resolve, 5));
const logger = createLogger({ role: "rollout", level: "silent" });
const metrics = createMetrics("rollout", { processMetrics: false });

/** A stream as the worker sees it. */
class Call extends Duplex {
  readonly said: RolloutMessage[] = [];

  constructor() {
    super({ objectMode: true });
  }

  get experiences(): string[] {
    return this.said
      .flatMap(({ experiences }) => experiences?.experiences ?? [])
      .map((bytes) => decodeExperience(bytes as Buffer))
      .map(({ taskId, attempt, rollout }) => `${taskId} ${attempt} ${rollout.experienceId}`);
  }

  get done(): string[] {
    return this.said.flatMap(({ done, failed }) => (done?.taskId ?? failed?.taskId ?? []) as string);
  }

  give(taskId: string, attempt = 1): void {
    const prompts = [0, 1].map((promptIndex) => ({
      experienceId: `0/${promptIndex}/0`,
      promptIndex,
      sampleIndex: 0,
      promptIds: Buffer.from(Int32Array.of(1, 2).buffer),
    }));
    const task = { taskId, attempt, policyVersion: 0, models: [], tokenizer: null, prompts, sampling: {} };
    this.push({ task: { ...task, score: true, stops: null } });
  }

  cancel(): void {
    this.destroy();
  }

  override _read(): void {}

  override _write(message: RolloutMessage, _: string, done: () => void): void {
    this.said.push(message);
    done();
  }
}

/** A compute thread whose tasks end when the test says so. */
class Compute {
  readonly tasks: { readonly task: RolloutTask; readonly end: Deferred<void> }[] = [];

  async run(name: string, argument: unknown): Promise<unknown> {
    if (name !== "perform") return undefined;
    const task = argument as RolloutTask;
    const end = makeDeferred<void>();
    this.tasks.push({ task, end });
    noteAdvance(task.signals!);
    await end.promise;
    throwIfCancelled(task.signals!);
    const column = new Float32Array(1);
    const rollouts = task.prompts.map((prompt) => ({
      ...{
        ...prompt,
        policyVersion: 0,
        responseIds: Int32Array.of(3),
        logprobs: column,
        finishReason: "eos",
      },
      ...{ refLogprobs: column, values: column, score: 1 },
    }));
    return { rollouts, generateMs: 1, scoreMs: 1 };
  }
}

function start(state: RolloutState, cluster = {}) {
  const call = new Call();
  const session = {
    sender: {},
    config: configSchema.parse({ data: { path: "rows.jsonl" }, cluster }),
    clients: { rollout: { perform: () => call } },
    signal: new AbortController().signal,
    draining: new AbortController().signal,
  } as unknown as Session;
  const ended = new RolloutSession(state, session, { logger, metrics }).run();
  return {
    call,
    ended: ended.then(
      () => "ended",
      (error: unknown) => error,
    ),
  };
}

const open = () => {
  const compute = new Compute();
  return { compute, state: new RolloutState(compute as unknown as RolloutState["compute"]) };
};

it("a session ends with its stream, at once; what was at work then is offered on the next one", async () => {
  const { compute, state } = open();
  const first = start(state);
  first.call.give("collect/0#0");
  await settle();
  expect(compute.tasks).toHaveLength(1);
  first.call.destroy();
  await first.ended; // the task has not ended
  const second = start(state);
  second.call.give("collect/0#0", 2);
  await settle();
  expect(compute.tasks).toHaveLength(1); // one after the other
  compute.tasks[0].end.resolve();
  await settle();
  expect(second.call.experiences).toEqual(["collect/0#0 1 0/0/0", "collect/0#0 1 0/1/0"]);
  // The coordinator takes them and tells the worker to leave the other attempt alone: it is not worked on to its end.
  second.call.push({ acks: { acks: [{ experienceIds: ["0/0/0", "0/1/0"], outcome: "admitted" }] } });
  second.call.push({ cancel: { taskId: "collect/0#0", attempt: 2 } });
  await settle();
  compute.tasks[1]?.end.resolve();
  await settle();
  expect(second.call.experiences).toHaveLength(2);
  expect(second.call.done).toEqual([]);
  second.call.give("collect/0#1");
  await settle();
  compute.tasks.at(-1)!.end.resolve();
  await settle();
  expect(second.call.done).toEqual(["collect/0#1"]);
  second.call.destroy();
  await second.ended;
});

it("what was sent and not acknowledged is offered again; of another run nothing is", async () => {
  const { compute, state } = open();
  const first = start(state);
  first.call.give("collect/0#0");
  await settle();
  compute.tasks[0].end.resolve();
  await settle();
  expect(first.call.experiences).toHaveLength(2);
  first.call.push({ acks: { acks: [{ experienceIds: ["0/0/0"], outcome: "admitted" }] } });
  await settle();
  first.call.destroy();
  await first.ended;
  const second = start(state);
  await settle();
  expect(second.call.experiences).toEqual(["collect/0#0 1 0/1/0"]);
  second.call.give("collect/0#1");
  await settle();
  second.call.destroy();
  await second.ended;
  state.forget();
  compute.tasks[1].end.resolve();
  const third = start(state);
  await settle();
  expect(third.call.experiences).toEqual([]);
  third.call.destroy();
  await third.ended;
});

it("tells with every heartbeat how far the task at work is; those behind it have not begun", async () => {
  const { compute, state } = open();
  expect(state.holdings().tasks).toEqual([]);
  const { call, ended } = start(state);
  call.give("a");
  call.give("b");
  await settle();
  const tokensOf = () =>
    Object.fromEntries(state.holdings().tasks!.map(({ taskId, tokens }) => [taskId, tokens]));
  const before = tokensOf();
  expect(before.a).toBeGreaterThan(0);
  expect(before.b).toBe(0);
  noteAdvance(compute.tasks[0].task.signals!, 5);
  expect(tokensOf()).toEqual({ a: before.a + 5, b: 0 });
  compute.tasks[0].end.resolve();
  await settle();
  expect(Object.keys(tokensOf())).toEqual(["b"]);
  expect(tokensOf().b).toBeGreaterThan(before.a);
  call.destroy();
  await ended;
});

it("a thread that hangs ends the process, also when its session is over", async () => {
  for (const isOver of [false, true]) {
    const { state } = open();
    const first = start(state, {
      taskTimeoutMs: 40,
      leaseTtlMs: 20,
      heartbeatIntervalMs: 5,
      stepTimeoutMs: 40,
    });
    first.call.give("collect/0#0");
    await settle();
    let current = first;
    if (isOver) {
      first.call.destroy();
      await first.ended;
      current = start(state);
    }
    const error = (await current.ended) as Error & { code: string };
    expect(error.code).toBe("INTERNAL");
    expect(error.message).toMatch(/no progress for 40 ms/);
  }
});
