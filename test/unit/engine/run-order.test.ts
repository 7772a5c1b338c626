import { expect, it } from "vitest";
import { RunOrder, type Claim } from "../../../src/engine/onnx/run-order.js";

const [a, b] = [{ name: "a" }, { name: "b" }];
const reads = (...arenas: object[]): Claim => ({ reads: arenas, writes: [], isAlone: false });
const writes = (...arenas: object[]): Claim => ({ reads: [], writes: arenas, isAlone: false });

/** Starts a run per claim; each ends when its number is finished. */
function start(order: RunOrder, claims: readonly Claim[]) {
  const running: number[] = [];
  const ends = new Map<number, () => void>();
  const all = claims.map((claim, n) =>
    order.run(claim, async () => {
      running.push(n);
      await new Promise<void>((resolve) => ends.set(n, resolve));
      running.splice(running.indexOf(n), 1);
    }),
  );
  const finish = async (n: number): Promise<void> => {
    ends.get(n)!();
    await all[n];
  };
  return { running, finish };
}

it("runs read side by side, as many as there are lanes", async () => {
  const { running, finish } = start(new RunOrder(2), [reads(a), reads(a), reads(a)]);
  expect(running).toEqual([0, 1]);
  await finish(1);
  expect(running).toEqual([0, 2]);
});

it("a writer waits for earlier readers and writers, and they for it; others pass", async () => {
  const { running, finish } = start(new RunOrder(4), [reads(a), writes(a), reads(a), writes(b), writes(b)]);
  expect(running).toEqual([0, 3]);
  await finish(0);
  expect(running).toEqual([3, 1]);
  await finish(1);
  expect(running).toEqual([3, 2]);
  await finish(3);
  expect(running).toEqual([2, 4]);
});

it("a run that is alone waits for all earlier ones, and all later ones for it", async () => {
  const alone = { ...reads(b), isAlone: true };
  const { running, finish } = start(new RunOrder(3), [reads(a), alone, reads(a)]);
  expect(running).toEqual([0]);
  await finish(0);
  expect(running).toEqual([1]);
  await finish(1);
  expect(running).toEqual([2]);
});

it("a failed run is its caller's error, and the next one goes on", async () => {
  const order = new RunOrder(1);
  const failed = order.run(writes(a), () => Promise.reject(new Error("failed")));
  const next = order.run(writes(a), async () => "done");
  await expect(failed).rejects.toThrow("failed");
  expect(await next).toBe("done");
  await order.idle();
});
