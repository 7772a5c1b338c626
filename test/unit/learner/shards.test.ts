import { expect, it } from "vitest";
import { checkLengths, denominatorOf, lengthOf } from "../../../src/learner/shards.js";
import { pairs, ppoRows } from "./fixtures.js";

it("counts what the losses count", () => {
  const [row] = ppoRows(1);
  const actionMask = row.actionMask.map((_, i) => (i < 2 ? 1 : 0));
  const sft = { ids: Int32Array.of(1, 2, 3), lossMask: Uint8Array.of(1, 1, 0) };
  expect(denominatorOf({ kind: "ppo", rows: [{ ...row, actionMask }, row] })).toBe(
    2 + row.responseIds.length,
  );
  expect(denominatorOf({ kind: "sft", rows: [sft] })).toBe(1);
  expect(denominatorOf({ kind: "reward", rows: pairs(3) })).toBe(3);
  expect(lengthOf.ppo(row)).toBe(row.promptIds.length + row.responseIds.length);
  expect(lengthOf.reward({ chosen: sft.ids, rejected: Int32Array.of(1), promptTokens: 1 })).toBe(3);
});

it("refuses what the model cannot hold", () => {
  expect(() => checkLengths([100], 100)).not.toThrow();
  expect(() => checkLengths([4, 101], 100)).toThrow(/101 tokens; the model holds 100/);
});
