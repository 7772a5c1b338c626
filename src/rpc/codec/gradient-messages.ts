/**
 * gRPC messages of the AllReduce call, without a copy of a bucket beyond the one into or out of the socket. The bytes
 * are those of GradientChunk in proto/troupe/v1/learner.proto; any gRPC client or server reads and writes them.
 *
 *   0  length:u32be | 12 n  08 node  10 bucket  1a m  values…        a bucket, as written here
 *
 * Generic code copies a bucket three times each way and allocates a mebibyte for each copy; what that costs is garbage
 * collection: more than half of the coordinator's CPU time.
 */
import { protocolError } from "../../shared/errors.js";

/** Of a gRPC message: a flag (0: not compressed) and the length. */
const ENVELOPE_BYTES = 5;
/** What comes before a bucket's values takes no more than this. */
const MAX_HEAD_BYTES = 48;

const TAG = { bucket: 0x12, node: 0x08, number: 0x10, values: 0x1a } as const;

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
  return [...bytes, value];
}

/** A message, with its envelope. */
export function envelope(message: Uint8Array): Buffer {
  const framed = Buffer.allocUnsafe(ENVELOPE_BYTES + message.length);
  framed[0] = 0;
  framed.writeUInt32BE(message.length, 1);
  framed.set(message, ENVELOPE_BYTES);
  return framed;
}

/** Everything of a bucket's message up to its `length` bytes of values, which follow as they are. */
export function bucketHead(node: number, bucket: number, length: number): Buffer {
  const inner = [TAG.node, ...varint(node), TAG.number, ...varint(bucket), TAG.values, ...varint(length)];
  const outer = [TAG.bucket, ...varint(inner.length + length), ...inner];
  const head = Buffer.from([0, 0, 0, 0, 0, ...outer]);
  head.writeUInt32BE(outer.length + length, 1);
  return head;
}

interface BucketHead {
  readonly node: number;
  readonly bucket: number;
  /** Of the values; they end the message. */
  readonly length: number;
  /** Where they start. */
  readonly start: number;
}

/** @returns undefined unless `head`, the start of a message of `total` bytes, is a bucket's with its values last */
function parseBucketHead(head: Uint8Array, total: number): BucketHead | undefined {
  let at = 0;
  const number = (): number => {
    let value = 0;
    for (let scale = 1; at < head.length && scale <= 2 ** 28; scale *= 128) {
      const byte = head[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    return NaN;
  };
  if (head[at++] !== TAG.bucket || number() !== total - at) return undefined;
  let node = 0;
  let bucket = 0;
  while (at < head.length) {
    const tag = head[at++];
    const value = number();
    if (tag === TAG.node) node = value;
    else if (tag === TAG.number) bucket = value;
    else if (tag === TAG.values && at + value === total) return { node, bucket, length: value, start: at };
    else return undefined;
  }
  return undefined;
}

export interface MessageSink {
  /** Memory of exactly `length` bytes for a bucket's values. Throws to end the call. */
  targetOf(node: number, bucket: number, length: number): Uint8Array;
  /** Throws to end the call. */
  bucket(node: number, bucket: number, values: Uint8Array): void;
  /** Any other message, and a bucket that another writer put together in another order. Throws to end the call. */
  message(bytes: Buffer): void;
}

/** Cuts a stream's bytes into messages; values of buckets go straight to where they belong. */
export class MessageReader {
  /** The message's envelope, then its first bytes. */
  private readonly head = Buffer.alloc(MAX_HEAD_BYTES);
  private headBytes = 0;
  private wanted = ENVELOPE_BYTES;
  /** Of the message; -1 while its envelope is not complete. */
  private length = -1;
  private target: Uint8Array | undefined;
  private filled = 0;
  private current: BucketHead | undefined;

  constructor(
    private readonly sink: MessageSink,
    private readonly maxMessageBytes: number,
    /** What a message of `length` bytes, more than that, is answered with. */
    private readonly tooLong: (length: number) => Error,
  ) {}

  /** @throws {TroupeError} PROTOCOL, or what the sink throws; nothing more may be read then */
  read(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      if (this.target === undefined) {
        const part = bytes.subarray(at, at + this.wanted - this.headBytes);
        this.head.set(part, this.headBytes);
        this.headBytes += part.length;
        at += part.length;
        if (this.headBytes === this.wanted) this.startMessage();
      } else {
        const part = bytes.subarray(at, at + this.target.length - this.filled);
        this.target.set(part, this.filled);
        this.filled += part.length;
        at += part.length;
        if (this.filled === this.target.length) this.endMessage();
      }
    }
  }

  private startMessage(): void {
    if (this.length < 0) {
      this.length = this.head.readUInt32BE(1);
      if (this.head[0] !== 0) throw protocolError("GradientChunk: compressed messages are not taken");
      if (this.length > this.maxMessageBytes) throw this.tooLong(this.length);
      this.headBytes = 0;
      this.wanted = Math.min(this.length, MAX_HEAD_BYTES);
      if (this.wanted > 0) return;
    }
    const head = this.head.subarray(0, this.headBytes);
    this.current = parseBucketHead(head, this.length);
    if (this.current === undefined) {
      this.target = Buffer.allocUnsafe(this.length);
      this.target.set(head);
      this.filled = head.length;
    } else {
      const { node, bucket, length, start } = this.current;
      this.target = this.sink.targetOf(node, bucket, length);
      if (this.target.length !== length)
        throw protocolError(`bucket ${bucket}: expected ${this.target.length} bytes, got ${length}`);
      this.target.set(head.subarray(start));
      this.filled = head.length - start;
    }
    if (this.filled === this.target.length) this.endMessage();
  }

  private endMessage(): void {
    const { current, target } = this;
    this.target = undefined;
    this.current = undefined;
    this.headBytes = 0;
    this.wanted = ENVELOPE_BYTES;
    this.length = -1;
    if (current === undefined) this.sink.message(target as Buffer);
    else this.sink.bucket(current.node, current.bucket, target as Uint8Array);
  }
}
