/**
 * One finished experience as the bytes of `Experience` (proto/troupe/v1/rollout.proto), written and read by hand: a
 * coordinator takes tens of thousands a second, and the generic codec would cost more than everything else together.
 * The same bytes travel, wait in the journal, and come back from there.
 */
import type { FinishReason, Rollout, ScoredRollout } from "../../rl/types.js";
import { protocolError } from "../../shared/errors.js";
import { isAllFinite } from "./columns.js";

/** An experience and the attempt at a task that made it. */
export interface TaskExperience {
  readonly taskId: string;
  readonly attempt: number;
  readonly rollout: ScoredRollout;
  /** False when a log-probability, value or the score is NaN or infinite. */
  readonly isFinite: boolean;
}

// Field numbers of `Experience`; a tag is number · 8 + wire type.
const VARINT = 0;
const FIXED64 = 1;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;
const FIELD = {
  taskId: 1,
  attempt: 2,
  experienceId: 3,
  promptIndex: 4,
  sampleIndex: 5,
  policyVersion: 6,
  promptIds: 7,
  responseIds: 8,
  logprobs: 9,
  refLogprobs: 10,
  values: 11,
  score: 12,
  finishReason: 13,
} as const;
const FIRST_COLUMN = FIELD.promptIds;
const COLUMNS = 5;

const FINISH_NUMBER: Readonly<Record<FinishReason, number>> = { eos: 1, stop: 2, length: 3 };
const FINISH_REASON: readonly (FinishReason | undefined)[] = [undefined, "eos", "stop", "length"];

const NONE = new Float32Array(0);
/** Longest tag, length and number of every field that is no string and no column: 13 fields, at most 7 bytes each. */
const FIXED_BYTES = 13 * 7;

/** @param rollout a scored rollout, or (tasks that asked for no scores) a plain one */
export function encodeExperience(taskId: string, attempt: number, rollout: Rollout | ScoredRollout): Buffer {
  const { refLogprobs, values, score } =
    "score" in rollout ? rollout : { refLogprobs: NONE, values: NONE, score: 0 };
  const columns = [rollout.promptIds, rollout.responseIds, rollout.logprobs, refLogprobs, values];
  let capacity = FIXED_BYTES + 3 * (taskId.length + rollout.experienceId.length);
  for (const column of columns) capacity += column.byteLength;
  const bytes = Buffer.allocUnsafe(capacity);
  let at = 0;
  const varint = (value: number) => {
    let rest = value;
    for (; rest > 127; rest = Math.floor(rest / 128)) bytes[at++] = (rest % 128) | 128;
    bytes[at++] = rest;
  };
  const number = (field: number, value: number) => {
    if (value === 0) return;
    bytes[at++] = (field << 3) | VARINT;
    varint(value);
  };
  const text = (field: number, value: string) => {
    if (value === "") return;
    bytes[at++] = (field << 3) | LENGTH_DELIMITED;
    varint(Buffer.byteLength(value));
    at += bytes.write(value, at);
  };
  text(FIELD.taskId, taskId);
  number(FIELD.attempt, attempt);
  text(FIELD.experienceId, rollout.experienceId);
  number(FIELD.promptIndex, rollout.promptIndex);
  number(FIELD.sampleIndex, rollout.sampleIndex);
  number(FIELD.policyVersion, rollout.policyVersion);
  for (let i = 0; i < COLUMNS; i++) {
    const { buffer, byteOffset, byteLength } = columns[i];
    if (byteLength === 0) continue;
    bytes[at++] = ((FIRST_COLUMN + i) << 3) | LENGTH_DELIMITED;
    varint(byteLength);
    bytes.set(new Uint8Array(buffer, byteOffset, byteLength), at);
    at += byteLength;
  }
  if (!Object.is(score, 0)) {
    bytes[at++] = (FIELD.score << 3) | FIXED32;
    at = bytes.writeFloatLE(score, at);
  }
  number(FIELD.finishReason, FINISH_NUMBER[rollout.finishReason]);
  return bytes.subarray(0, at);
}

/** Memory for columns, handed out from its start. */
interface Room {
  readonly memory: ArrayBuffer;
  used: number;
}

/**
 * Columns are copied, since gRPC's and the journal's buffers are pooled and unaligned.
 * @throws {TroupeError} PROTOCOL when the bytes are no experience, or its columns disagree in length
 */
export function decodeExperience(message: Uint8Array): TaskExperience {
  return decodeInto({ memory: new ArrayBuffer(message.byteLength), used: 0 }, message);
}

/**
 * Experiences that came together; their columns share one piece of memory, because an allocation for each would cost
 * more than the copy. It lives as long as one of them.
 * @throws {TroupeError} PROTOCOL like `decodeExperience`
 */
export function decodeExperiences(messages: readonly Uint8Array[]): TaskExperience[] {
  let bytes = 0;
  for (const { byteLength } of messages) bytes += byteLength;
  const room = { memory: new ArrayBuffer(bytes), used: 0 };
  return messages.map((message) => decodeInto(room, message));
}

/** The columns take less room than the message, and a multiple of 4 bytes. */
function decodeInto(room: Room, message: Uint8Array): TaskExperience {
  const bytes = Buffer.from(message.buffer, message.byteOffset, message.byteLength);
  const end = bytes.length;
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; at < end; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      if (scale > 2 ** 56) break;
    }
    throw damaged("a number does not end");
  };
  /** The next `length` bytes; returns where they start. */
  const take = (length: number): number => {
    const start = at;
    at += length;
    if (at > end) throw damaged(`a field of ${length} bytes ends after the message`);
    return start;
  };
  let taskId = "";
  let experienceId = "";
  let attempt = 0;
  let promptIndex = 0;
  let sampleIndex = 0;
  let policyVersion = 0;
  let score = 0;
  let finish = 0;
  const starts = [0, 0, 0, 0, 0];
  const lengths = [0, 0, 0, 0, 0];
  while (at < end) {
    const tag = varint();
    const field = Math.floor(tag / 8);
    switch (tag % 8) {
      case VARINT: {
        const value = varint();
        if (field === FIELD.attempt) attempt = value;
        else if (field === FIELD.promptIndex) promptIndex = value;
        else if (field === FIELD.sampleIndex) sampleIndex = value;
        else if (field === FIELD.policyVersion) policyVersion = value;
        else if (field === FIELD.finishReason) finish = value;
        break;
      }
      case LENGTH_DELIMITED: {
        const length = varint();
        const start = take(length);
        const column = field - FIRST_COLUMN;
        if (column >= 0 && column < COLUMNS) {
          starts[column] = start;
          lengths[column] = length;
        } else if (field === FIELD.taskId) taskId = bytes.toString("utf8", start, at);
        else if (field === FIELD.experienceId) experienceId = bytes.toString("utf8", start, at);
        break;
      }
      case FIXED32: {
        const start = take(4);
        if (field === FIELD.score) score = bytes.readFloatLE(start);
        break;
      }
      case FIXED64:
        take(8);
        break;
      default:
        throw damaged(`wire type ${tag % 8} is none of ours`);
    }
  }
  const [promptBytes, responseBytes, logprobBytes, refBytes, valueBytes] = lengths;
  const check = (field: string, byteLength: number, expected: number) => {
    if (byteLength !== expected)
      throw protocolError(
        `experience ${experienceId}: ${field}: expected ${expected} bytes, got ${byteLength}`,
      );
  };
  if (promptBytes % 4 !== 0) check("prompt_ids", promptBytes, Math.floor(promptBytes / 4) * 4);
  if (responseBytes % 4 !== 0) check("response_ids", responseBytes, Math.floor(responseBytes / 4) * 4);
  if (responseBytes === 0)
    throw protocolError(`experience ${experienceId}: expected at least one response token, got none`);
  const scoreBytes = refBytes > 0 ? responseBytes : 0;
  check("logprobs", logprobBytes, responseBytes);
  check("ref_logprobs", refBytes, scoreBytes);
  check("values", valueBytes, scoreBytes);
  const finishReason = FINISH_REASON[finish];
  if (finishReason === undefined)
    throw protocolError(`experience ${experienceId}: finish_reason: expected 1, 2 or 3, got ${finish}`);

  const { memory } = room;
  const copy = new Uint8Array(memory);
  const offsets = [0, 0, 0, 0, 0];
  for (let i = 0; i < COLUMNS; i++) {
    copy.set(bytes.subarray(starts[i], starts[i] + lengths[i]), room.used);
    offsets[i] = room.used;
    room.used += lengths[i];
  }
  const integers = (i: number) => new Int32Array(memory, offsets[i], lengths[i] / 4);
  const floats = (i: number) => new Float32Array(memory, offsets[i], lengths[i] / 4);
  const rollout: ScoredRollout = {
    experienceId,
    promptIndex,
    sampleIndex,
    policyVersion,
    promptIds: integers(0),
    responseIds: integers(1),
    logprobs: floats(2),
    refLogprobs: floats(3),
    values: floats(4),
    score,
    finishReason,
  };
  // The three float columns lie next to each other.
  const numbers = new Float32Array(memory, offsets[2], (logprobBytes + refBytes + valueBytes) / 4);
  return { taskId, attempt, rollout, isFinite: Number.isFinite(score) && isAllFinite(numbers) };
}

const damaged = (why: string) => protocolError(`Experience: the message does not decode: ${why}`);
