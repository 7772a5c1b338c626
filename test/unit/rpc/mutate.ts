/** Bytes that are nearly right: what a broken peer, a newer release or an attacker sends. Reproducible from a seed. */

export type Random = () => number;

/** Mulberry32: 32 bits of state, uniform in [0, 1). */
export function randomFrom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const below = (random: Random, n: number): number => Math.floor(random() * n);

const bytes = (random: Random, length: number): Buffer =>
  Buffer.from(Uint8Array.from({ length }, () => below(random, 256)));

/** Values that have broken parsers: longest varints, huge lengths, deep groups, float NaN and infinity, `__proto__`. */
const NASTY: readonly Buffer[] = [
  Buffer.from("ffffffffffffffffff01", "hex"),
  Buffer.from("ffffffffffffffffffffffff", "hex"),
  Buffer.from("0affffffff0f", "hex"),
  Buffer.from("12ffffffff07", "hex"),
  Buffer.alloc(3000, 0x0b), // groups in groups in groups
  Buffer.from("0000c07f", "hex"),
  Buffer.from("000080ff", "hex"),
  Buffer.from("000000000000f87f", "hex"),
  Buffer.from("0a120a095f5f70726f746f5f5f12050a03666f6f", "hex"),
  Buffer.from("08ffffffffffffffff7f", "hex"),
  Buffer.alloc(1, 0),
];

/** One to four changes to `seed`, which stays as it is. */
export function mutate(seed: Buffer, random: Random): Buffer {
  let result: Buffer = Buffer.from(seed);
  for (let left = 1 + below(random, 4); left > 0; left--) result = change(result, random);
  return result;
}

function change(message: Buffer, random: Random): Buffer {
  const at = below(random, message.length + 1);
  const until = Math.min(message.length, at + 1 + below(random, 16));
  const [head, middle, tail] = [
    message.subarray(0, at),
    message.subarray(at, until),
    message.subarray(until),
  ];
  switch (below(random, 9)) {
    case 0: {
      const flipped = Buffer.from(message);
      if (at < flipped.length) flipped[at] ^= 1 << below(random, 8);
      return flipped;
    }
    case 1: {
      const set = Buffer.from(message);
      if (at < set.length) set[at] = [0, 1, 0x7f, 0x80, 0xff][below(random, 5)];
      return set;
    }
    case 2:
      return Buffer.from(head); // cut off
    case 3:
      return Buffer.concat([head, tail]);
    case 4:
      return Buffer.concat([head, bytes(random, 1 + below(random, 24)), middle, tail]);
    case 5:
      return Buffer.concat([head, middle, middle, tail]);
    case 6:
      return Buffer.concat([head, NASTY[below(random, NASTY.length)], middle, tail]);
    case 7:
      return bytes(random, below(random, 200));
    default:
      return Buffer.concat([message, message]); // the last value of a field wins, repeated ones double
  }
}
