import { expect, it } from "vitest";
import { ExperienceStore } from "../../../src/coordinator/experience-store.js";
import { MemoryLog } from "../../../src/coordinator/journal/index.js";
import { answerTo, bytesOf, promptsOf } from "./rollout-stage.js";

const record = { type: "EpochStarted", epoch: 1 } as const;

async function journalled() {
  const log = new MemoryLog();
  const [prompt] = promptsOf(3, 1);
  await log.append([{ record, put: [{ id: prompt.experienceId, bytes: bytesOf("collect/3#0", prompt) }] }]);
  return { log, prompt, store: new ExperienceStore(log) };
}

it("gives what was put, the same object, in the order asked for", async () => {
  const store = new ExperienceStore(new MemoryLog());
  const [first, second] = promptsOf(0, 2).map((prompt) => answerTo(prompt));
  store.put(first);
  store.put(second);
  const [b, a] = await store.getAll(["0/1/0", "0/0/0"]);
  expect(a).toBe(first);
  expect(b).toBe(second);
});

it("reads from the journal what is not in memory: the same numbers", async () => {
  const { store, prompt } = await journalled();
  expect(await store.getAll([prompt.experienceId])).toStrictEqual([answerTo(prompt)]);
});

it("keeps nothing that was released, and finds it again in the journal", async () => {
  const { store, prompt } = await journalled();
  const [before] = await store.getAll([prompt.experienceId]);
  store.releaseUpTo(2); // it is of iteration 3
  expect((await store.getAll([prompt.experienceId]))[0]).toBe(before);
  store.releaseUpTo(4);
  const [after] = await store.getAll([prompt.experienceId]);
  expect(after).not.toBe(before);
  expect(after).toStrictEqual(before);
});

it("says so when an admitted experience is nowhere", async () => {
  const { store } = await journalled();
  await expect(store.getAll(["9/9/0"])).rejects.toThrow(
    expect.objectContaining({ code: "STORAGE", message: expect.stringContaining("9/9/0") as string }),
  );
});
