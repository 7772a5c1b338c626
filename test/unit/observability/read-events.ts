import { crc32c, maskCrc } from "../../../src/observability/tensorboard.js";

export interface ReadEvent {
  wallTime: number;
  step: number;
  fileVersion?: string;
  scalars: Record<string, number>;
}

/** Parses an event file from the format's description, checking both checksums of every record. */
export function readEvents(file: Buffer): ReadEvent[] {
  const events: ReadEvent[] = [];
  for (let at = 0; at < file.length;) {
    const length = Number(file.readBigUInt64LE(at));
    const data = file.subarray(at + 12, at + 12 + length);
    if (file.readUInt32LE(at + 8) !== maskCrc(crc32c(file.subarray(at, at + 8))))
      throw new Error("length crc");
    if (file.readUInt32LE(at + 12 + length) !== maskCrc(crc32c(data))) throw new Error("data crc");
    events.push(readEvent(data));
    at += 16 + length;
  }
  return events;
}

function readEvent(data: Buffer): ReadEvent {
  const event: ReadEvent = { wallTime: 0, step: 0, scalars: {} };
  for (const [field, value] of fields(data)) {
    if (field === 1) event.wallTime = (value as Buffer).readDoubleLE();
    else if (field === 2) event.step = value as number;
    else if (field === 3) event.fileVersion = (value as Buffer).toString();
    else if (field === 5) {
      for (const [, scalar] of fields(value as Buffer)) {
        const parts = new Map(fields(scalar as Buffer));
        event.scalars[(parts.get(1) as Buffer).toString()] = (parts.get(2) as Buffer).readFloatLE();
      }
    }
  }
  return event;
}

function fields(data: Buffer): [number, Buffer | number][] {
  const list: [number, Buffer | number][] = [];
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = data[at++];
      value += (byte & 0x7f) * scale;
      if (byte < 128) return value;
    }
  };
  const take = (count: number) => data.subarray(at, (at += count));
  while (at < data.length) {
    const key = varint();
    const wireType = key % 8;
    const value = wireType === 0 ? varint() : take(wireType === 1 ? 8 : wireType === 5 ? 4 : varint());
    list.push([Math.floor(key / 8), value]);
  }
  return list;
}
