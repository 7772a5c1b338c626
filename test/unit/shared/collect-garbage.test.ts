import { expect, it } from "vitest";
import { sleep } from "../../../src/shared/abort.js";
import { collectGarbage } from "../../../src/shared/collect-garbage.js";

it("frees shared memory that nobody holds any more, which V8 does not do by itself", async () => {
  const held = new SharedArrayBuffer(8);
  const isHeld = new WeakRef(held);
  const isDropped = (() => new WeakRef(new SharedArrayBuffer(8)))();
  await sleep(0); // a WeakRef holds its target until the turn is over
  collectGarbage();
  expect(isDropped.deref()).toBeUndefined();
  expect(isHeld.deref()).toBe(held);
});
