import { expect, it } from "vitest";
import { defaultCollection } from "../../src/load/load-options.js";
import { rowOfLoad, tableOfLoads } from "../../src/load/load-table.js";
import { measureLoad } from "../../src/load/measure-load.js";

it("the load generator measures a real coordinator under a few workers", async () => {
  const notes: string[] = [];
  const options = {
    rollouts: 5,
    learners: 2,
    ...{ flooders: 0, floodPerSecond: 0, experienceBytes: 512, gradientElements: 64, collection: 64 },
    ...{ promptsPerTask: 8, taskMs: 0, stepMs: 0, heartbeatMs: 1000, seconds: 2 },
  };
  const result = await measureLoad(options, { onNote: (text) => notes.push(text) });

  expect(notes[0]).toMatch(/^5 rollouts and 2 learners joined in /);
  expect(result.experiences).toBeGreaterThan(0);
  expect(result.steps).toBeGreaterThan(0);
  expect(result.gaveUp).toBe(0);
  // Second answers to tasks that were given out twice, for being slow.
  expect(result.rejected).toBeLessThan(result.experiences);
  // Experiences lie beside the records, in a folder of their own.
  expect(result.journalMb * 1e6).toBeGreaterThan(options.collection * options.experienceBytes);
  expect(result.heartbeatMs.p99).toBeGreaterThan(0);
  expect(tableOfLoads([result]).split("\n").at(-1)).toBe(rowOfLoad(result));
  expect(rowOfLoad(result)).toMatch(/^\| 5 \| 2 \| \d+ \|/);
}, 180_000);

it("a collection holds two tasks for every worker, up to what one step can hold", () => {
  expect([10, 1_000, 3_000].map((rollouts) => defaultCollection(rollouts, 16))).toEqual([
    4096, 32_768, 32_768,
  ]);
});
