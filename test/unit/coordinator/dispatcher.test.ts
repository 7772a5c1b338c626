import { describe, expect, it } from "vitest";
import { encodeExperience } from "../../../src/rpc/codec/experience-bytes.js";
import {
  BRIEF,
  answerTo,
  bytesOf,
  openStage,
  promptsOf,
  settle,
  type WorkerStream,
} from "./rollout-stage.js";

const forever = new AbortController().signal;

/** Answers every task the stream was given and not answered before. */
function answerAll(
  stream: WorkerStream,
  prompts: ReturnType<typeof promptsOf>,
  answered = new Set<string>(),
) {
  for (const task of stream.tasks) {
    if (answered.has(task.taskId!)) continue;
    answered.add(task.taskId!);
    const experiences = task.prompts!.map(({ promptIndex }) =>
      bytesOf(task.taskId!, prompts[promptIndex!], 2, task.attempt),
    );
    stream.say({ experiences: { experiences } });
    stream.say({ done: { taskId: task.taskId, attempt: task.attempt } });
  }
}

describe("a collection", () => {
  it("comes back whole, in id order, each experience acknowledged as admitted, a batch in one message", async () => {
    const stage = await openStage();
    const prompts = promptsOf(0, 12);
    const stream = await stage.join("rollout-0", 6);
    const collected = stage.dispatcher.collect(0, prompts, 0, BRIEF, forever);
    await settle();
    expect(stream.tasks.map(({ prompts: rows }) => rows!.length)).toEqual([2, 2, 2, 2, 2, 2]);
    const [first] = stream.tasks;
    const before = stream.received.length;
    stream.say({ experiences: { experiences: [1, 0].map((i) => bytesOf(first.taskId!, prompts[i])) } });
    await settle();
    expect(stream.received.slice(before).flatMap(({ acks }) => (acks ? [acks.acks] : []))).toEqual([
      [{ experienceIds: ["0/1/0", "0/0/0"], outcome: "admitted" }],
    ]);
    answerAll(stream, prompts, new Set([first.taskId!]));
    expect(await collected).toEqual(prompts.map((prompt) => answerTo(prompt)));
    expect(stage.dispatcher.intakeBytes).toBe(0);
    await stage.close();
  });

  it("acknowledges nothing that is not on disk", async () => {
    const stage = await openStage();
    const prompts = promptsOf(0, 2);
    const stream = await stage.join("rollout-0");
    const collected = stage.dispatcher.collect(0, prompts, 0, BRIEF, forever);
    await settle();
    stage.log.hold();
    answerAll(stream, prompts);
    await settle();
    expect(stream.acks).toEqual([]);
    expect(stage.dispatcher.intakeBytes).toBeGreaterThan(0);
    expect(stage.log.readPayload("0/0/0")).toBeUndefined();
    stage.log.release();
    expect(await collected).toHaveLength(2);
    expect(stream.acks.map(({ outcome }) => outcome)).toEqual(["admitted", "admitted"]);
    expect(stage.log.readPayload("0/0/0")).toEqual(bytesOf("collect/0#0", prompts[0]));
    await stage.close();
  });

  it("admits what arrives twice once", async () => {
    const stage = await openStage();
    const prompts = promptsOf(0, 2);
    const stream = await stage.join("rollout-0");
    const collected = stage.dispatcher.collect(0, prompts, 0, BRIEF, forever);
    await settle();
    const bytes = bytesOf("collect/0#0", prompts[0]);
    stream.say({ experiences: { experiences: [bytes, bytes, bytes] } });
    stream.say({ experiences: { experiences: [bytesOf("collect/0#0", prompts[1])] } });
    expect(await collected).toHaveLength(2);
    expect(stream.acks.map(({ outcome }) => outcome).sort()).toEqual([
      "admitted",
      "admitted",
      "duplicate",
      "duplicate",
    ]);
    expect(stage.host.state.durable.counts.admitted).toBe(2);
    expect(stage.dispatcher.intakeBytes).toBe(0);
    await stage.close();
  });

  it("is shared out evenly among workers that must first load the new policy", async () => {
    const stage = await openStage();
    const streams = [
      await stage.join("rollout-0"),
      await stage.join("rollout-1"),
      await stage.join("rollout-2"),
    ];
    const prompts = promptsOf(0, 6);
    const collected = stage.dispatcher.collect(0, prompts, 0, BRIEF, forever);
    await settle();
    expect(streams.map(({ tasks }) => tasks.length)).toEqual([1, 1, 1]);
    for (const stream of streams) answerAll(stream, prompts);
    await collected;
    await stage.close();
  });

  it("is given to another worker when the stream of the first breaks", async () => {
    const stage = await openStage();
    const prompts = promptsOf(0, 2);
    const first = await stage.join("rollout-0");
    const collected = stage.dispatcher.collect(0, prompts, 0, BRIEF, forever);
    await settle();
    expect(first.tasks).toHaveLength(1);
    first.destroy();
    const second = await stage.join("rollout-1");
    await settle();
    expect(second.tasks).toMatchObject([{ taskId: "collect/0#0", attempt: 2 }]);
    answerAll(second, prompts);
    expect(await collected).toHaveLength(2);
    await stage.close();
  });
});

describe("a run that is stopped", () => {
  it("lets a worker leave once it has answered what it was given, and keeps its answers", async () => {
    const stage = await openStage();
    const prompts = promptsOf(0, 8);
    const stopping = new AbortController();
    const collected = stage.dispatcher.collect(0, prompts, 0, BRIEF, stopping.signal);
    await settle();
    stopping.abort(new Error("told to stop"));
    await expect(collected).rejects.toThrow("told to stop");
    const stream = await stage.join("rollout-0", 2); // it had asked for work, and hears of the end a heartbeat later
    await settle();
    expect(stream.tasks).toHaveLength(2);
    stream.say({ draining: {} });
    await settle();
    expect(stream.writableEnded).toBe(false);
    answerAll(stream, prompts);
    await settle();
    expect(stream.writableEnded).toBe(true);
    expect(stage.host.state.durable.counts.admitted).toBe(4);
    await stage.close();
  });
});

describe("a worker that samples from a policy that has become too old", () => {
  it("is told to stop and gets the newer weights by name, and what it still sends is refused as stale", async () => {
    const stage = await openStage();
    const prompts = promptsOf(0, 2);
    const stream = await stage.join("rollout-0");
    const models = (policyVersion: number) => [
      { role: "actor", parameters: { name: `actor/${policyVersion}`, sha256: `v${policyVersion}` } },
    ];
    const collected = stage.dispatcher.collect(0, prompts, 0, { ...BRIEF, models }, forever);
    await settle();
    stage.host.dispatch({ type: "VersionPublished", policyVersion: 1, sha256: "v1" });
    await settle();
    const [first, second] = stream.tasks;
    expect(stream.received.flatMap(({ cancel }) => (cancel ? [cancel] : []))).toEqual([
      { taskId: first.taskId, attempt: 1 },
    ]);
    expect(first).toMatchObject({ policyVersion: 0, models: [{ parameters: { sha256: "v0" } }] });
    expect(second).toMatchObject({
      attempt: 2,
      policyVersion: 1,
      models: [{ parameters: { sha256: "v1" } }],
    });
    stream.say({ experiences: { experiences: prompts.map((prompt) => bytesOf(first.taskId!, prompt)) } });
    await settle();
    expect(stream.acks).toEqual([
      { experienceId: "0/0/0", outcome: "stale" },
      { experienceId: "0/1/0", outcome: "stale" },
    ]);
    expect(stage.host.state.durable.counts.admitted).toBe(0);
    const fresh = prompts.map((prompt) =>
      encodeExperience(second.taskId!, 2, { ...answerTo(prompt), policyVersion: 1 }),
    );
    stream.say({ experiences: { experiences: fresh } });
    expect((await collected).map(({ policyVersion }) => policyVersion)).toEqual([1, 1]);
    await stage.close();
  });
});

describe("an evaluation", () => {
  it("comes back in prompt order, acknowledged as such, and enters no ledger", async () => {
    const stage = await openStage();
    const stream = await stage.join("rollout-0");
    const prompts = promptsOf("eval", 4);
    const evaluated = stage.dispatcher.evaluate("evaluate/before", prompts, 0, BRIEF, forever);
    await settle();
    answerAll(stream, prompts);
    expect((await evaluated).map((answer) => answer?.experienceId)).toEqual(
      prompts.map(({ experienceId }) => experienceId),
    );
    expect(new Set(stream.acks.map(({ outcome }) => outcome))).toEqual(new Set(["evaluation"]));
    expect(stage.host.state.durable.counts.admitted).toBe(0);
    expect(stage.dispatcher.intakeBytes).toBe(0);
    await stage.close();
  });
});

describe("a worker that sends what nobody asked for", () => {
  it.each([
    ["another prompt's tokens", { promptIds: Int32Array.of(1, 3) }, /prompt_ids\[1\]: expected 2 .*got 3/],
    ["a longer prompt", { promptIds: Int32Array.of(1, 2, 3) }, /prompt_ids: expected the 2 tokens/],
    ["another place", { promptIndex: 1 }, /prompt_index: expected 0, got 1/],
    ["another sample", { sampleIndex: 3 }, /sample_index: expected 0, got 3/],
    [
      "a token the model does not have",
      { responseIds: Int32Array.of(3, 16) },
      /response_ids\[1\].*0 to 15, got 16/,
    ],
    ["a negative token", { responseIds: Int32Array.of(-1, 3) }, /response_ids\[0\]/],
    ["no scores", { refLogprobs: new Float32Array(0), values: new Float32Array(0) }, /ref_logprobs/],
  ])("%s: nothing of the message is taken, and its stream ends", async (_, change, reason) => {
    const stage = await openStage();
    const prompts = promptsOf(0, 2);
    const stream = await stage.join("rollout-0");
    const errors: Error[] = [];
    stream.on("error", (error) => errors.push(error));
    const collected = stage.dispatcher.collect(0, prompts, 0, BRIEF, forever);
    await settle();
    const wrong = encodeExperience("collect/0#0", 1, { ...answerTo(prompts[0]), ...change });
    stream.say({ experiences: { experiences: [bytesOf("collect/0#0", prompts[1]), wrong] } });
    await settle();
    expect(errors.map(({ message }) => message)).toEqual([expect.stringMatching(reason)]);
    expect(stage.host.state.durable.counts.admitted).toBe(0);
    const second = await stage.join("rollout-1");
    await settle();
    answerAll(second, prompts);
    expect(await collected).toHaveLength(2);
    await stage.close();
  });

  it("an answer longer than allowed is refused, one of that length is not", async () => {
    const stage = await openStage();
    const prompts = promptsOf(0, 2);
    const stream = await stage.join("rollout-0");
    const errors: Error[] = [];
    stream.on("error", (error) => errors.push(error));
    const brief = { ...BRIEF, sampling: { seed: 1, maxNewTokens: 3 } };
    void stage.dispatcher.collect(0, prompts, 0, brief, forever);
    await settle();
    stream.say({ experiences: { experiences: [bytesOf("collect/0#0", prompts[0], 3)] } });
    await settle();
    expect(stream.acks).toEqual([{ experienceId: "0/0/0", outcome: "admitted" }]);
    stream.say({ experiences: { experiences: [bytesOf("collect/0#0", prompts[1], 4)] } });
    await settle();
    expect(errors.map(({ message }) => message)).toEqual([
      expect.stringContaining("at most 3 tokens, got 4"),
    ]);
    await stage.close();
  });
});

describe("an answer that is not finite", () => {
  const broken = (taskId: string, prompt: ReturnType<typeof promptsOf>[number]) =>
    encodeExperience(taskId, 1, { ...answerTo(prompt), values: Float32Array.of(0, NaN) });

  it("is given up as such at once, and its id can be looked up; the others of its task are kept", async () => {
    const stage = await openStage();
    const prompts = promptsOf(0, 2);
    const stream = await stage.join("rollout-0");
    const collected = stage.dispatcher.collect(0, prompts, 0, BRIEF, forever);
    await settle();
    const experiences = [broken("collect/0#0", prompts[0]), bytesOf("collect/0#0", prompts[1])];
    stream.say({ experiences: { experiences } });
    expect((await collected).map(({ experienceId }) => experienceId)).toEqual(["0/1/0"]);
    expect(stage.host.state.durable.counts.abandoned).toEqual({ nonfinite: 1 });
    expect(stage.dropped).toEqual(["0/0/0 [1,2] nonfinite"]);
    await stage.close();
  });

  it("ends the run when it is the only kind there is", async () => {
    const stage = await openStage();
    const prompts = promptsOf(0, 2);
    const stream = await stage.join("rollout-0");
    const collected = stage.dispatcher.collect(0, prompts, 0, BRIEF, forever);
    await settle();
    stream.say({ experiences: { experiences: prompts.map((prompt) => broken("collect/0#0", prompt)) } });
    await expect(collected).rejects.toMatchObject({
      code: "NUMERIC",
      message: expect.stringContaining("none of its 2 prompts") as string,
    });
    await stage.close();
  });

  it("of an evaluation leaves a gap, and none at all ends it", async () => {
    const stage = await openStage();
    const stream = await stage.join("rollout-0");
    const prompts = promptsOf("eval", 2);
    const first = stage.dispatcher.evaluate("evaluate/before", prompts, 0, BRIEF, forever);
    await settle();
    const [taskId] = stream.tasks.map((task) => task.taskId!);
    stream.say({ experiences: { experiences: [bytesOf(taskId, prompts[0]), broken(taskId, prompts[1])] } });
    stream.say({ done: { taskId, attempt: 1 } });
    expect((await first).map((answer) => answer?.experienceId ?? null)).toEqual(["eval/0/0", null]);
    expect(stage.dropped).toEqual(["eval/1/0 [1,2] nonfinite"]);
    const second = stage.dispatcher.evaluate("evaluate/after", prompts, 0, BRIEF, forever);
    await settle();
    const again = stream.tasks.at(-1)!.taskId!;
    stream.say({ experiences: { experiences: prompts.map((prompt) => broken(again, prompt)) } });
    stream.say({ done: { taskId: again, attempt: 1 } });
    await expect(second).rejects.toMatchObject({ code: "NUMERIC" });
    expect(stage.dispatcher.intakeBytes).toBe(0);
    await stage.close();
  });
});

describe("an evaluation whose worker forgets an answer", () => {
  it("is handed out again", async () => {
    const stage = await openStage();
    const stream = await stage.join("rollout-0");
    const prompts = promptsOf("eval", 2);
    const evaluated = stage.dispatcher.evaluate("evaluate/before", prompts, 0, BRIEF, forever);
    await settle();
    const [{ taskId }] = stream.tasks;
    stream.say({ experiences: { experiences: [bytesOf(taskId!, prompts[0])] } });
    stream.say({ done: { taskId, attempt: 1 } });
    await settle();
    const second = stream.tasks[1];
    expect(second).toMatchObject({ taskId, attempt: 2 });
    const experiences = prompts.map((prompt) => bytesOf(taskId!, prompt, 2, 2));
    stream.say({ experiences: { experiences } });
    stream.say({ done: { taskId, attempt: 2 } });
    expect((await evaluated).map((answer) => answer?.experienceId)).toEqual(["eval/0/0", "eval/1/0"]);
    await stage.close();
  });
});

describe("answers that come before the train loop asks for them", () => {
  it("wait, and are judged as soon as it does: a worker that comes back after a restart offers what it made", async () => {
    const before = await openStage();
    const prompts = promptsOf(0, 4);
    void before.dispatcher.collect(0, prompts, 0, BRIEF, forever).catch(() => undefined);
    await settle();
    const stage = await openStage({ log: before.log });
    const stream = await stage.join("rollout-0");
    const experiences = [bytesOf("collect/0#0", prompts[0]), bytesOf("collect/0#0", prompts[1])];
    stream.say({ experiences: { experiences } });
    await settle();
    expect(stream.acks).toEqual([]);
    expect(stage.dispatcher.intakeBytes).toBeGreaterThan(0);
    const collected = stage.dispatcher.collect(0, prompts, 0, BRIEF, forever);
    await settle();
    expect(stream.acks.map(({ outcome }) => outcome)).toEqual(["admitted", "admitted"]);
    answerAll(stream, prompts, new Set(["collect/0#0"]));
    expect(await collected).toHaveLength(4);
    expect(stage.dispatcher.intakeBytes).toBe(0);
    await before.close();
    await stage.close();
  });
});

describe("a worker that offers more than is taken", () => {
  it("is not read from while its bytes wait for the disk, and nothing of it is lost", async () => {
    const stage = await openStage();
    const prompts = promptsOf(0, 2);
    const stream = await stage.join("rollout-0");
    const collected = stage.dispatcher.collect(0, prompts, 0, BRIEF, forever);
    await settle();
    stage.log.hold();
    // 100 messages of 4 MiB: nine tenths of a gigabyte less than what is offered may be taken in.
    const large = bytesOf("collect/0#0", prompts[0], 1 << 18);
    const count = 100;
    for (let i = 0; i < count; i++) stream.say({ experiences: { experiences: [large] } });
    stream.say({ experiences: { experiences: [bytesOf("collect/0#0", prompts[1])] } });
    await settle();
    expect(stream.isPaused()).toBe(true);
    expect(stage.dispatcher.intakeBytes).toBeLessThanOrEqual((64 << 20) + large.length);
    expect(stage.dispatcher.intakeBytes).toBeGreaterThanOrEqual(64 << 20);
    stage.log.release();
    expect(await collected).toHaveLength(2);
    await settle();
    expect(stream.acks).toHaveLength(count + 1);
    expect(stage.dispatcher.intakeBytes).toBe(0);
    await stage.close();
  });

  it("is not read from while it does not read its acknowledgements", async () => {
    const stage = await openStage();
    const stream = await stage.join("rollout-0", 0);
    stream.isDeaf = true;
    const unwanted = bytesOf("collect/9#0", promptsOf(9, 1)[0]);
    for (let i = 0; i < 200; i++) {
      stream.say({ experiences: { experiences: [unwanted] } });
      if (i % 10 === 0) await settle();
    }
    expect(stream.isPaused()).toBe(true);
    expect(stream.writableLength).toBeLessThan(32);
    expect(stream.readableLength).toBeGreaterThan(0);
    await stage.close();
  });
});
