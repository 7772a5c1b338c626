import { describe, expect, it } from "vitest";
import { MiniDataset } from "../../../src/rl/mini-dataset.js";

describe("MiniDataset", () => {
  it("returns null until maxSize batches are stored, then all of them in small batches", () => {
    const dataset = new MiniDataset<number>(2, 3);
    expect(dataset.add([0, 1, 2, 3])).toBeNull();
    expect(dataset.batches).toEqual([[0, 1, 2, 3]]);
    // the first batch's short rest is not filled up from the second
    expect(dataset.add([4, 5, 6, 7, 8])).toEqual([[0, 1, 2], [3], [4, 5, 6], [7, 8]]);
  });

  it("hands out every row exactly once and starts over empty", () => {
    const dataset = new MiniDataset<number>(1, 2);
    expect(dataset.add([1, 2, 3])).toEqual([[1, 2], [3]]);
    expect(dataset.batches).toEqual([]);
    expect(dataset.add([4])).toEqual([[4]]);
  });

  it("free forgets what is stored", () => {
    const dataset = new MiniDataset<number>(2, 2);
    dataset.add([1]);
    dataset.free();
    expect(dataset.add([2])).toBeNull();
  });

  it("passes an empty batch on as nothing", () => {
    expect(new MiniDataset<number>(1, 2).add([])).toEqual([]);
  });

  it.each([
    [0, 1],
    [1, 0],
    [1.5, 1],
  ])("refuses sizes %d and %d", (maxSize, small) => {
    expect(() => new MiniDataset(maxSize, small)).toThrow(/integers from 1/);
  });
});
