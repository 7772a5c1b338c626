import { describe, expect, it } from "vitest";
import { MessageReader, bucketHead, envelope } from "../../../src/rpc/codec/gradient-messages.js";
import { troupe } from "../../../src/rpc/load-proto.js";

const { requestSerialize, requestDeserialize } = troupe.v1.LearnerService.service.AllReduce;
const LIMIT = 1 << 20;

/** What a reader makes of `bytes`, cut into pieces of `size`. */
function read(bytes: Buffer, size: number) {
  const buckets: { node: number; bucket: number; values: number[] }[] = [];
  const messages: Buffer[] = [];
  const reader = new MessageReader(
    {
      targetOf: (_node, _bucket, length) => new Uint8Array(length),
      bucket: (node, bucket, values) => void buckets.push({ node, bucket, values: [...values] }),
      message: (message) => void messages.push(message),
    },
    LIMIT,
    (length) => new Error(`${length} is too long`),
  );
  for (let at = 0; at < bytes.length; at += size) reader.read(bytes.subarray(at, at + size));
  return { buckets, messages };
}

const values = (length: number): number[] => Array.from({ length }, (_, i) => (i * 37 + 11) & 255);
const asSent = (node: number, bucket: number, length: number) =>
  envelope(requestSerialize({ bucket: { node, bucket, values: Buffer.from(values(length)) } }));
const NUMBERS = [
  [0, 0, 4],
  [1, 127, 3],
  [3, 128, 40],
  [300, 70_000, 200],
  [0, 5, 20_000],
];

describe("a bucket's message", () => {
  it("is written as protobuf writes it", () => {
    for (const [node, bucket, length] of NUMBERS) {
      const written = Buffer.concat([bucketHead(node, bucket, length), Buffer.from(values(length))]);
      expect(written.equals(asSent(node, bucket, length))).toBe(true);
    }
  });

  it("is read however the stream is cut", () => {
    const stream = Buffer.concat(NUMBERS.map(([node, bucket, length]) => asSent(node, bucket, length)));
    const expected = NUMBERS.map(([node, bucket, length]) => ({ node, bucket, values: values(length) }));
    for (const size of [1, 2, 7, 48, 53, 1000, stream.length]) {
      const { buckets, messages } = read(stream, size);
      expect(buckets).toEqual(expected);
      expect(messages).toEqual([]);
    }
  });

  it("is read without the fields that a writer leaves out for being zero", () => {
    const message = Buffer.from([0x12, 5, 0x1a, 3, 9, 8, 7]);
    const { buckets } = read(Buffer.concat([envelope(message), asSent(0, 5, 8)]), 3);
    expect(buckets).toEqual([
      { node: 0, bucket: 0, values: [9, 8, 7] },
      { node: 0, bucket: 5, values: values(8) },
    ]);
  });

  it("is handed on whole when its values are not last", () => {
    const message = Buffer.from([0x12, 7, 0x1a, 3, 9, 8, 7, 0x10, 2]);
    const { buckets, messages } = read(Buffer.concat([envelope(message), asSent(1, 5, 8)]), 4);
    expect(buckets).toHaveLength(1);
    expect(requestDeserialize(messages[0]).bucket).toMatchObject({
      bucket: 2,
      values: Buffer.from([9, 8, 7]),
    });
  });
});

describe("other messages", () => {
  it("are handed on as they are, empty ones included", () => {
    const header = requestSerialize({ header: { generation: 7, step: 3, elementCount: 1e6 } });
    const stream = Buffer.concat([envelope(header), envelope(Buffer.alloc(0)), asSent(0, 0, 4)]);
    for (const size of [1, 5, stream.length]) {
      const { messages, buckets } = read(stream, size);
      expect(messages.map((message) => message.length)).toEqual([header.length, 0]);
      expect(requestDeserialize(messages[0]).header).toMatchObject({ generation: 7, step: 3 });
      expect(buckets).toHaveLength(1);
    }
  });

  it("are refused when compressed, or longer than the limit", () => {
    expect(() => read(Buffer.from([1, 0, 0, 0, 1, 0]), 6)).toThrow(/compressed/);
    expect(() => read(Buffer.from([0, 0, 0x20, 0, 0]), 5)).toThrow(/2097152 is too long/);
  });
});
