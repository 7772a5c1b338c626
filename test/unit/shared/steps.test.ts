import { expect, it } from "vitest";
import { atOnce, inSlices, nextTurn, type Steps } from "../../../src/shared/steps.js";

function* sumOf(numbers: readonly number[], work: () => void = () => undefined): Steps<number> {
  let sum = 0;
  for (const number of numbers) {
    work();
    sum += number;
    yield;
  }
  return sum;
}

function* failing(): Steps<number> {
  yield;
  throw new Error("broken");
}

const numbers = Array.from({ length: 100 }, (_, i) => i);

it("gives the same result at once and in slices", async () => {
  expect(atOnce(sumOf(numbers))).toBe(4950);
  expect(await inSlices(sumOf(numbers))).toBe(4950);
});

it("lets timers in while it runs in slices, and none when it runs at once", async () => {
  let ticks = 0;
  const timer = setInterval(() => (ticks += 1), 1);
  const spin = () => {
    const endMs = performance.now() + 1;
    while (performance.now() < endMs);
  };
  atOnce(sumOf(numbers, spin));
  expect(ticks).toBe(0);
  await inSlices(sumOf(numbers, spin));
  expect(ticks).toBeGreaterThanOrEqual(3);
  clearInterval(timer);
});

it("passes an error on", async () => {
  expect(() => atOnce(failing())).toThrow("broken");
  await expect(inSlices(failing())).rejects.toThrow("broken");
});

it("slices of several computations do not add up: timers come in between any two", async () => {
  const events: string[] = [];
  let isDone = false;
  const tick = () => {
    events.push("turn of others");
    if (!isDone) setImmediate(tick);
  };
  setImmediate(tick);
  const take = async () => {
    for (let i = 0; i < 5; i++) {
      await nextTurn();
      events.push("slice");
    }
  };
  await Promise.all([take(), take(), take()]);
  isDone = true;
  expect(events.filter((event) => event === "slice")).toHaveLength(15);
  expect(events.join(",")).not.toContain("slice,slice");
});
