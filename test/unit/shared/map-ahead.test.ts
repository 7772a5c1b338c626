import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { mapAhead } from "../../../src/shared/map-ahead.js";

async function collect<T>(results: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const result of results) all.push(result);
  return all;
}

it("yields results in the items' order, whichever is ready first, with at most `width` under way", async () => {
  let running = 0;
  let most = 0;
  const work = async (ms: number): Promise<number> => {
    most = Math.max(most, ++running);
    await sleep(ms);
    running--;
    return ms;
  };
  const items = [9, 1, 5, 1, 3];
  expect(await collect(mapAhead(items, 2, work))).toEqual(items);
  expect(most).toBe(2);
  most = 0;
  expect(await collect(mapAhead(items, 1, work))).toEqual(items);
  expect(most).toBe(1);
});

it("starts nothing after a failure and leaves nothing under way", async () => {
  const started: number[] = [];
  let ended = 0;
  const work = async (item: number): Promise<number> => {
    started.push(item);
    await sleep(item === 1 ? 1 : 5);
    ended++;
    if (item === 1) throw new Error("item 1");
    return item;
  };
  await expect(collect(mapAhead([1, 2, 3, 4], 2, work))).rejects.toThrow("item 1");
  expect(started).toEqual([1, 2]);
  expect(ended).toBe(2);
});
