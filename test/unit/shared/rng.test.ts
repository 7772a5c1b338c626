import { describe, expect, it } from "vitest";
import {
  fillNormal,
  normalAt,
  permutationOf,
  philox4x32,
  streamOf,
  uniformAt,
} from "../../../src/shared/rng.js";

const hex = (words: Uint32Array) => [...words].map((word) => word.toString(16).padStart(8, "0")).join(" ");

describe("philox4x32-10", () => {
  // Known answers of Random123 (Salmon et al. 2011), kat_vectors.
  it.each([
    [[0, 0, 0, 0], [0, 0], "6627e8d5 e169c58d bc57ac4c 9b00dbd8"],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      "d16cfe09 94fdcceb 5001e420 24126ea1",
    ],
  ])("counter %j under key %j", (counter, [key0, key1], expected) => {
    const words = Uint32Array.from(counter);
    philox4x32(words, key0, key1);
    expect(hex(words)).toBe(expected);
  });
});

describe("keyed randomness", () => {
  const stream = streamOf("0/3/1");

  it("is a function of seed, stream and index, and of each of them", () => {
    const value = uniformAt(7, stream, 5);
    expect(uniformAt(7, stream, 5)).toBe(value);
    expect(uniformAt(8, stream, 5)).not.toBe(value);
    expect(uniformAt(7 + 2 ** 40, stream, 5)).not.toBe(value);
    expect(uniformAt(7, streamOf("0/3/2"), 5)).not.toBe(value);
    expect(uniformAt(7, stream, 6)).not.toBe(value);
    expect(uniformAt(7, stream, 5 + 2 ** 33)).not.toBe(value);
  });

  it("streams of ten thousand ids and of ids with the same prefix are all different", () => {
    const names = Array.from({ length: 10_000 }, (_, i) => `${i % 100}/${i}/0`);
    names.push("", "\0", "\0\0", "a", "aa", "aaaa", "aaaa\0", "aaaaa");
    expect(new Set(names.map((name) => JSON.stringify(streamOf(name)))).size).toBe(names.length);
  });

  it("uniforms fill [0, 1) evenly", () => {
    const bins = new Int32Array(10);
    for (let i = 0; i < 20_000; i++) bins[Math.floor(10 * uniformAt(1, stream, i))]++;
    const chiSquare = bins.reduce((sum, count) => sum + (count - 2000) ** 2 / 2000, 0);
    expect(chiSquare).toBeLessThan(27.9); // 9 degrees of freedom: exceeded once in a thousand
  });

  it.each([
    ["normalAt", () => Float32Array.from({ length: 20_001 }, (_, i) => normalAt(3, stream, i))],
    [
      "fillNormal",
      () => {
        const values = new Float32Array(20_001);
        fillNormal(values, 1, 3, stream);
        return values;
      },
    ],
  ])("%s has mean 0, deviation 1, kurtosis 3", (_name, make) => {
    const values = make();
    const moment = (power: number) => values.reduce((sum, value) => sum + value ** power, 0) / values.length;
    expect(Math.abs(moment(1))).toBeLessThan(0.03);
    expect(Math.abs(moment(2) - 1)).toBeLessThan(0.05);
    expect(Math.abs(moment(4) - 3)).toBeLessThan(0.3);
  });

  it("permutations hold every index once and differ by stream", () => {
    const order = permutationOf(100, 1, stream);
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i));
    expect(permutationOf(100, 1, stream)).toEqual(order);
    expect(permutationOf(100, 1, streamOf("x"))).not.toEqual(order);
  });

  it("permutes three elements into all six orders equally often", () => {
    const counts = new Map<string, number>();
    for (let i = 0; i < 6000; i++) {
      const order = permutationOf(3, 1, streamOf(`p${i}`)).join();
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(6);
    for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(130); // 4.5 deviations
  });
});
