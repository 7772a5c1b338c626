/**
 * Counter-based randomness: a number is a pure function of (seed, stream, index), so any process can make the same
 * one again, in any order, without sharing state.
 *
 * Philox4x32-10: 4 counter words are mixed by 10 rounds under a 2-word key.
 *
 *   key = seed (53 bits)      counter = [index low, index high, stream low, stream high]
 *
 * @see Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"; known answers in test/unit/shared/rng.test.ts
 */

/** A 64-bit stream number as two unsigned 32-bit words. */
export interface Stream {
  readonly low: number;
  readonly high: number;
}

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const TWO_32 = 4294967296;

/** High word of the unsigned 32 x 32 -> 64 bit product; the low word is `Math.imul`. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16); // every partial sum stays below 2^32, exact in a double
  const cross = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + (middle >>> 16) + (cross >>> 16)) >>> 0;
}

/**
 * One Philox4x32-10 block.
 * @param counter 4 words, overwritten with the 4 output words
 */
export function philox4x32(counter: Uint32Array, key0: number, key1: number): void {
  let [c0, c1, c2, c3] = counter;
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const low0 = Math.imul(MULTIPLIER_0, c0);
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low1 = Math.imul(MULTIPLIER_1, c2);
    c0 = (high1 ^ c1 ^ key0) >>> 0;
    c1 = low1 >>> 0;
    c2 = (high0 ^ c3 ^ key1) >>> 0;
    c3 = low0 >>> 0;
    key0 = (key0 + WEYL_0) >>> 0;
    key1 = (key1 + WEYL_1) >>> 0;
  }
  counter[0] = c0;
  counter[1] = c1;
  counter[2] = c2;
  counter[3] = c3;
}

const highWord = (value: number): number => Math.floor(value / TWO_32) >>> 0;

/**
 * The stream of a name (an experience id, a tensor name): its UTF-16 code units and length absorbed block by block
 * through Philox, so that different names practically never share a stream (64 bits).
 */
export function streamOf(name: string): Stream {
  const block = new Uint32Array(4);
  let low = name.length >>> 0;
  let high = 0;
  const unit = (at: number): number => (at < name.length ? name.charCodeAt(at) : 0);
  for (let at = 0; at < name.length || at === 0; at += 4) {
    block[0] = unit(at) | (unit(at + 1) << 16);
    block[1] = unit(at + 2) | (unit(at + 3) << 16);
    block[2] = low;
    block[3] = high;
    philox4x32(block, 0x54726f75, 0x70650001);
    low = block[0];
    high = block[1];
  }
  return { low, high };
}

/** The 4 output words of (seed, stream, index), into `out`. */
function blockAt(out: Uint32Array, seed: number, stream: Stream, index: number): void {
  out[0] = index >>> 0;
  out[1] = highWord(index);
  out[2] = stream.low;
  out[3] = stream.high;
  philox4x32(out, seed >>> 0, highWord(seed));
}

const toUniform = (word0: number, word1: number): number =>
  ((word0 >>> 5) * 67108864 + (word1 >>> 6)) / 2 ** 53;

const scratch = new Uint32Array(4);

/**
 * A uniform double in [0, 1) with 53 random bits.
 * @param seed  integer in [0, 2^53)
 * @param index integer in [0, 2^53)
 */
export function uniformAt(seed: number, stream: Stream, index: number): number {
  blockAt(scratch, seed, stream, index);
  return toUniform(scratch[0], scratch[1]);
}

/** A standard normal double (Box-Muller on the two uniforms of the block). */
export function normalAt(seed: number, stream: Stream, index: number): number {
  blockAt(scratch, seed, stream, index);
  const radius = Math.sqrt(-2 * Math.log(1 - toUniform(scratch[0], scratch[1])));
  return radius * Math.cos(2 * Math.PI * toUniform(scratch[2], scratch[3]));
}

/**
 * Fills `target` with normals of mean 0 and deviation `std`; element i depends on (seed, stream, i) only. Four per
 * block, from 32-bit uniforms, for parameters, where there are millions of them.
 */
export function fillNormal(target: Float32Array, std: number, seed: number, stream: Stream): void {
  for (let first = 0; first < target.length; first += 4) {
    blockAt(scratch, seed, stream, first / 4);
    for (let pair = 0; pair < 2; pair++) {
      const radius = std * Math.sqrt(-2 * Math.log((scratch[2 * pair] + 0.5) / TWO_32));
      const angle = (2 * Math.PI * scratch[2 * pair + 1]) / TWO_32;
      const at = first + 2 * pair;
      if (at < target.length) target[at] = radius * Math.cos(angle);
      if (at + 1 < target.length) target[at + 1] = radius * Math.sin(angle);
    }
  }
}

/**
 * A random permutation of 0..n-1 (Fisher-Yates); the same for equal (seed, stream, n).
 * @returns `[n]`
 */
export function permutationOf(n: number, seed: number, stream: Stream): Int32Array {
  const order = Int32Array.from({ length: n }, (_, i) => i);
  for (let last = n - 1; last > 0; last--) {
    const other = Math.floor(uniformAt(seed, stream, last) * (last + 1));
    const kept = order[last];
    order[last] = order[other];
    order[other] = kept;
  }
  return order;
}
