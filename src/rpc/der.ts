/** Just enough DER (ITU-T X.690) to write an X.509 certificate: definite lengths, minimal integers. */

const tagged = (tag: number, ...parts: readonly Uint8Array[]): Buffer => {
  const content = Buffer.concat(parts);
  return Buffer.concat([Buffer.from([tag]), lengthOf(content.length), content]);
};

/** Lengths below 128 are one byte; longer ones are 0x80 + the count of length bytes, then those, big-endian. */
function lengthOf(bytes: number): Buffer {
  if (bytes < 0x80) return Buffer.from([bytes]);
  const digits: number[] = [];
  for (let rest = bytes; rest > 0; rest = Math.floor(rest / 256)) digits.unshift(rest % 256);
  return Buffer.from([0x80 | digits.length, ...digits]);
}

export const sequence = (...parts: readonly Uint8Array[]): Buffer => tagged(0x30, ...parts);
export const set = (...parts: readonly Uint8Array[]): Buffer => tagged(0x31, ...parts);
export const boolean = (value: boolean): Buffer => tagged(0x01, Buffer.from([value ? 0xff : 0]));
export const octetString = (content: Uint8Array): Buffer => tagged(0x04, content);
export const utf8String = (text: string): Buffer => tagged(0x0c, Buffer.from(text, "utf8"));

/** A non-negative integer from its big-endian bytes: no superfluous zero bytes, and never a set sign bit. */
export function integer(magnitude: Uint8Array): Buffer {
  const first = magnitude.findIndex((byte) => byte !== 0);
  const digits = first === -1 ? Buffer.from([0]) : Buffer.from(magnitude.subarray(first));
  return tagged(0x02, ...((digits[0] & 0x80) !== 0 ? [Buffer.from([0]), digits] : [digits]));
}

/** @param unusedBits of the last byte */
export const bitString = (content: Uint8Array, unusedBits = 0): Buffer =>
  tagged(0x03, Buffer.from([unusedBits]), content);

/** @param text dotted, e.g. "2.5.29.17" */
export function objectIdentifier(text: string): Buffer {
  const [first, second, ...rest] = text.split(".").map(Number);
  const digits = [40 * first + second, ...rest].flatMap((arc) => {
    const groups = [arc & 0x7f];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128))
      groups.unshift(0x80 | (left % 128));
    return groups;
  });
  return tagged(0x06, Buffer.from(digits));
}

/** Seconds precision, UTC: UTCTime through 2049, GeneralizedTime after (RFC 5280 §4.1.2.5). */
export function time(at: Date): Buffer {
  const digits = at.toISOString().replace(/[-:T]|\.\d+/g, "");
  return at.getUTCFullYear() < 2050
    ? tagged(0x17, Buffer.from(digits.slice(2), "ascii"))
    : tagged(0x18, Buffer.from(digits, "ascii"));
}

/** `[number]` of a context: `explicit` wraps a whole value, `implicit` replaces its tag. */
export const explicit = (number: number, value: Uint8Array): Buffer => tagged(0xa0 | number, value);
export const implicit = (number: number, content: Uint8Array): Buffer => tagged(0x80 | number, content);
