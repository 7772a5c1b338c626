import { expect, test } from "vitest";
import {
  crc32c,
  encodeFileVersion,
  encodeRecord,
  encodeScalars,
  maskCrc,
} from "../../../src/observability/tensorboard.js";
import { readEvents } from "./read-events.js";

test("crc32c matches the published check value and RFC 3720's vectors", () => {
  expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
  expect(crc32c(Buffer.alloc(32))).toBe(0x8a9136aa);
  expect(crc32c(Buffer.alloc(32, 0xff))).toBe(0x62a8ab43);
  expect(crc32c(new Uint8Array())).toBe(0);
});

test("the mask is a rotation by 15 plus TFRecord's constant, modulo 2^32", () => {
  expect(maskCrc(0)).toBe(0xa282ead8);
  expect(maskCrc(1)).toBe(0xa284ead8);
  expect(maskCrc(0xffffffff)).toBe(0xa282ead7);
});

test("bytes equal a file written by tensorboard 2.21", () => {
  // EventFileWriter's records for file_version at wall time 1.5, and scalar "objective/kl" = 0.25 at step 300, time 2.5.
  const version = "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c";
  const scalar =
    "2300000000000000b09f774309000000000000044010ac022a150a130a0c6f626a6563746976652f6b6c150000803ed92b2645";
  expect(encodeRecord(encodeFileVersion(1.5)).toString("hex")).toBe(version);
  expect(encodeRecord(encodeScalars(2.5, 300, { "objective/kl": 0.25 })).toString("hex")).toBe(scalar);
});

test("scalars come back with tag, step and time; float32 precision, NaN kept", () => {
  const file = Buffer.concat([
    encodeRecord(encodeFileVersion(10.25)),
    encodeRecord(encodeScalars(11.5, 300, { "objective/kl": 0.1, "val/ratio": NaN })),
    encodeRecord(encodeScalars(12, 2 ** 31 + 5, { lr: 1e-5 })),
  ]);
  expect(readEvents(file)).toEqual([
    { wallTime: 10.25, step: 0, fileVersion: "brain.Event:2", scalars: {} },
    { wallTime: 11.5, step: 300, scalars: { "objective/kl": Math.fround(0.1), "val/ratio": NaN } },
    { wallTime: 12, step: 2 ** 31 + 5, scalars: { lr: Math.fround(1e-5) } },
  ]);
});
