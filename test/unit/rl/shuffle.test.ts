import { describe, expect, it } from "vitest";
import { shuffled, shuffledOrder } from "../../../src/rl/shuffle.js";

const key = { seed: 3, iteration: 2, epoch: 1 };

describe("shuffledOrder", () => {
  it("is a permutation", () => {
    for (const n of [0, 1, 2, 17, 100]) {
      expect([...shuffledOrder(n, key)].sort((a, b) => a - b)).toEqual([...Array(n).keys()]);
    }
  });

  it("depends on seed, iteration and epoch, and on nothing else", () => {
    const order = [...shuffledOrder(50, key)];
    expect([...shuffledOrder(50, { ...key })]).toEqual(order);
    for (const other of [{ seed: 4 }, { iteration: 3 }, { epoch: 2 }]) {
      expect([...shuffledOrder(50, { ...key, ...other })]).not.toEqual(order);
    }
    // (iteration 1, epoch 11) and (iteration 11, epoch 1) are different shuffles
    expect([...shuffledOrder(50, { ...key, iteration: 1, epoch: 11 })]).not.toEqual([
      ...shuffledOrder(50, { ...key, iteration: 11, epoch: 1 }),
    ]);
  });

  it("puts every item everywhere equally often", () => {
    const counts = new Float64Array(5 * 5);
    const runs = 2000;
    for (let epoch = 0; epoch < runs; epoch++) {
      shuffledOrder(5, { ...key, epoch }).forEach((item, place) => counts[item * 5 + place]++);
    }
    // expected 400 each, standard deviation √(2000·0.2·0.8) = 18: five of them
    counts.forEach((count) => expect(Math.abs(count - runs / 5)).toBeLessThan(90));
  });
});

describe("shuffled", () => {
  it("orders items and leaves the input alone", () => {
    const items = ["a", "b", "c", "d", "e", "f"];
    const result = shuffled(items, key);
    expect(result).toEqual(Array.from(shuffledOrder(6, key), (i) => items[i]));
    expect(items).toEqual(["a", "b", "c", "d", "e", "f"]);
  });
});
