/**
 * Frames of the bulk channel: five little-endian uint32 and a payload.
 *
 *   kind  node  bucket  length  checksum | payload of `length` bytes
 *
 * A member opens a step (JSON), hears at once that this was read (JSON, empty), sends its buckets, and gets every total;
 * or a refusal (JSON) that ends the connection.
 */
import { protocolError } from "../shared/errors.js";

export const FRAME = { open: 1, bucket: 2, total: 3, refusal: 4, heard: 5 } as const;

/** Largest payload of `open`, `refusal` and `heard`. */
export const MAX_NOTE_BYTES = 64 << 10;

export interface Frame {
  readonly kind: number;
  /** Position among the member's announced nodes (`bucket`); 0. */
  readonly node: number;
  readonly bucket: number;
  /** Bytes of payload. */
  readonly length: number;
  /** `digestOf` the payload. */
  readonly checksum: number;
}

export const HEADER_BYTES = 20;

export function writeHeader({ kind, node, bucket, length, checksum }: Frame): Buffer {
  return Buffer.from(Uint32Array.of(kind, node, bucket, length, checksum).buffer);
}

export interface FrameSink {
  /** Memory of exactly `frame.length` bytes for the payload. Throws to end the connection. */
  targetOf(frame: Frame): Uint8Array;
  /** Throws to end the connection. */
  received(frame: Frame, payload: Uint8Array): void;
}

/** Cuts a byte stream into frames; payloads go straight to where they belong. */
export class FrameReader {
  private readonly header = Buffer.alloc(HEADER_BYTES);
  private target: Uint8Array = this.header;
  private filled = 0;
  private frame: Frame | undefined;

  constructor(private readonly sink: FrameSink) {}

  /** Where the next bytes belong. */
  get space(): Uint8Array {
    return this.filled === 0 ? this.target : this.target.subarray(this.filled);
  }

  /** So many bytes were written to `space`. @throws what the sink throws */
  advance(count: number): void {
    this.filled += count;
    if (this.filled < this.target.length) return;
    this.filled = 0;
    if (this.frame === undefined) {
      const [kind, node, bucket, length, checksum] = new Uint32Array(
        this.header.buffer,
        this.header.byteOffset,
        HEADER_BYTES / 4,
      );
      this.frame = { kind, node, bucket, length, checksum };
      if (length === 0) throw protocolError("bulk frame: expected a payload, got none");
      this.target = this.sink.targetOf(this.frame);
      if (this.target.length !== length)
        throw protocolError(`bulk frame: expected ${this.target.length} bytes, got ${length}`);
    } else {
      const { frame, target } = this;
      this.frame = undefined;
      this.target = this.header;
      this.sink.received(frame, target);
    }
  }

  /** Bytes from elsewhere. @throws what the sink throws */
  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const { space } = this;
      const part = bytes.subarray(at, at + space.length);
      space.set(part);
      at += part.length;
      this.advance(part.length);
    }
  }
}
