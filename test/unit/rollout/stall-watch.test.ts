import { expect, it } from "vitest";
import { whileItAdvances } from "../../../src/rollout/stall-watch.js";
import { sleep } from "../../../src/shared/abort.js";

const never = new Promise<never>(() => undefined);

it("gives the result, or the error, of work that ends in time", async () => {
  const stalls: unknown[] = [];
  const watch = <T>(work: Promise<T>) =>
    whileItAdvances(
      work,
      () => 0,
      60_000,
      "task t",
      (e) => stalls.push(e),
    );
  expect(await watch(Promise.resolve(7))).toBe(7);
  await expect(watch(Promise.reject(new Error("no")))).rejects.toThrow("no");
  expect(stalls).toEqual([]);
});

it("waits for as long as work advances, and tells of work that does not", async () => {
  let advanced = 0;
  const stalls: Error[] = [];
  const watched = whileItAdvances(
    never,
    () => advanced,
    40,
    "task t",
    (error) => stalls.push(error),
  );
  const ended = expect(watched).rejects.toThrow(/^task t: the compute thread made no progress for 40 ms/);
  for (let i = 0; i < 100; i++) {
    advanced += 1;
    await sleep(1);
  }
  expect(stalls).toEqual([]);
  await ended;
  expect(stalls).toHaveLength(1);
});
