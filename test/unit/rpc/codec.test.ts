import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  float32Column,
  fromRagged,
  int32Column,
  toColumn,
  toRagged,
  uint8Column,
} from "../../../src/rpc/codec/columns.js";
import { decodeExperience, encodeExperience } from "../../../src/rpc/codec/experience-bytes.js";
import { fromPromptRow, toPromptRow } from "../../../src/rpc/codec/prompt-row.js";
import { decodeGradient, encodeGradient } from "../../../src/rpc/codec/gradient.js";
import { fromShard, toShard, type MicroShard } from "../../../src/rpc/codec/shard.js";
import type { Experience__Output } from "../../../src/rpc/generated/troupe/v1/Experience.js";
import type { LearnerDirective__Output } from "../../../src/rpc/generated/troupe/v1/LearnerDirective.js";
import type { RolloutDirective__Output } from "../../../src/rpc/generated/troupe/v1/RolloutDirective.js";
import type { RolloutMessage__Output } from "../../../src/rpc/generated/troupe/v1/RolloutMessage.js";
import type { Shard__Output } from "../../../src/rpc/generated/troupe/v1/Shard.js";
import { packageDefinition, troupe } from "../../../src/rpc/load-proto.js";
import type { Rollout, ScoredRollout } from "../../../src/rl/types.js";

// Every message goes through the generated serializers too: what is tested is what travels.
const rollout = troupe.v1.RolloutService.service.Perform;
const learner = troupe.v1.LearnerService.service.Perform;

/** The message type as the generic codec knows it: what the hand-written one must agree with. */
const generic = packageDefinition["troupe.v1.Experience"] as unknown as {
  serialize(message: object): Buffer;
  deserialize(bytes: Buffer): Experience__Output;
};
const overWire = (bytes: Buffer): Buffer => {
  const sent = rollout.requestSerialize({ experiences: { experiences: [Buffer.from("before"), bytes] } });
  return (rollout.requestDeserialize(sent) as RolloutMessage__Output).experiences!.experiences[1];
};
const shardOverWire = (shard: MicroShard): Shard__Output =>
  (
    learner.responseDeserialize(
      learner.responseSerialize({ train: { shards: [toShard(shard)] } }),
    ) as LearnerDirective__Output
  ).train?.shards[0] as Shard__Output;

const float32 = fc.float({ noNaN: true, noDefaultInfinity: true });
const id = fc.integer({ min: 0, max: 2 ** 31 - 1 });
const ids = (min: number) =>
  fc.array(id, { minLength: min, maxLength: 12 }).map((values) => Int32Array.from(values));
const floats = (length: number) =>
  fc.array(float32, { minLength: length, maxLength: length }).map((values) => Float32Array.from(values));
const bits = (length: number) =>
  fc
    .array(fc.integer({ min: 0, max: 1 }), { minLength: length, maxLength: length })
    .map((values) => Uint8Array.from(values));

const plainRollout: fc.Arbitrary<Rollout> = ids(1).chain((responseIds) =>
  fc.record({
    promptIndex: fc.nat(1e6),
    sampleIndex: fc.nat(64),
    experienceId: fc.stringMatching(/^\d{1,4}\/\d{1,4}\/\d{1,2}$/),
    promptIds: ids(0),
    policyVersion: fc.nat(1000),
    responseIds: fc.constant(responseIds),
    logprobs: floats(responseIds.length),
    finishReason: fc.constantFrom("eos" as const, "stop" as const, "length" as const),
  }),
);
const scoredRollout: fc.Arbitrary<ScoredRollout> = plainRollout.chain((made) => {
  const length = made.responseIds.length;
  return fc
    .record({ refLogprobs: floats(length), values: floats(length), score: float32 })
    .map((scores) => ({ ...made, ...scores }));
});

describe("experiences on the wire", () => {
  it("arrive as they were sent, to the last bit", () => {
    fc.assert(
      fc.property(scoredRollout, fc.nat(9), (sent, attempt) => {
        const bytes = overWire(encodeExperience("collect/0#1", attempt, sent));
        expect(decodeExperience(bytes)).toStrictEqual({
          taskId: "collect/0#1",
          attempt,
          rollout: sent,
          isFinite: true,
        });
      }),
    );
  });

  it("are the bytes that the contract describes, both ways", () => {
    fc.assert(
      fc.property(scoredRollout, fc.nat(300), (sent, attempt) => {
        const read = generic.deserialize(encodeExperience("collect/ü#1", attempt, sent));
        expect(read).toMatchObject({ taskId: "collect/ü#1", attempt, experienceId: sent.experienceId });
        expect(read.values).toEqual(toColumn(sent.values));
        expect(decodeExperience(generic.serialize(read))).toStrictEqual({
          taskId: "collect/ü#1",
          attempt,
          rollout: sent,
          isFinite: true,
        });
      }),
    );
  });

  it("arrive without scores when the task asked for none", () => {
    fc.assert(
      fc.property(plainRollout, (sent) => {
        const none = new Float32Array(0);
        expect(decodeExperience(overWire(encodeExperience("t#0", 1, sent))).rollout).toStrictEqual({
          ...sent,
          refLogprobs: none,
          values: none,
          score: 0,
        });
      }),
    );
  });

  const sent: ScoredRollout = {
    experienceId: "3/1/0",
    promptIndex: 1,
    sampleIndex: 0,
    promptIds: Int32Array.of(5, 6),
    policyVersion: 3,
    responseIds: Int32Array.of(7, 8, 9),
    logprobs: Float32Array.of(-1, -2, -3),
    refLogprobs: Float32Array.of(-1, -2, -3),
    values: Float32Array.of(0, 1, 2),
    score: 0.5,
    finishReason: "eos",
  };
  const damaged = (changes: Partial<Experience__Output>): Buffer =>
    generic.serialize({ ...generic.deserialize(encodeExperience("t#0", 1, sent)), ...changes });
  const cut = (column: Float32Array | Int32Array, bytes: number) => toColumn(column).subarray(0, -bytes);

  it.each<[string, Buffer, RegExp]>([
    ["no response token", damaged({ responseIds: Buffer.alloc(0) }), /at least one response token/],
    [
      "a response cut inside a token",
      damaged({ responseIds: cut(sent.responseIds, 1) }),

      /response_ids: expected 8 bytes, got 11/,
    ],
    ["a prompt cut inside a token", damaged({ promptIds: cut(sent.promptIds, 3) }), /prompt_ids/],
    [
      "fewer log-probabilities than tokens",
      damaged({ logprobs: cut(sent.logprobs, 4) }),

      /logprobs: expected 12 bytes, got 8/,
    ],
    [
      "fewer reference log-probabilities",
      damaged({ refLogprobs: cut(sent.refLogprobs, 8) }),

      /ref_logprobs: expected 12 bytes, got 4/,
    ],
    [
      "no values beside reference log-probabilities",
      damaged({ values: Buffer.alloc(0) }),

      /values: expected 12 bytes, got 0/,
    ],
    [
      "values without reference log-probabilities",
      damaged({ refLogprobs: Buffer.alloc(0) }),

      /values: expected 0 bytes, got 12/,
    ],
    ["no finish reason", damaged({ finishReason: "FINISH_REASON_UNSPECIFIED" }), /finish_reason/],
  ])("are refused with %s, naming experience and column", (_, message, text) => {
    expect(() => decodeExperience(message)).toThrow(
      expect.objectContaining({
        code: "PROTOCOL",
        message: expect.stringMatching(new RegExp(`experience 3/1/0.*(${text.source})`)) as string,
      }),
    );
  });

  it.each<[string, Partial<ScoredRollout>]>([
    ["a NaN log-probability", { logprobs: Float32Array.of(-1, NaN, -1) }],
    ["an infinite reference log-probability", { refLogprobs: Float32Array.of(Infinity, 0, 0) }],
    ["an infinite value", { values: Float32Array.of(0, 0, -Infinity) }],
    ["a NaN score", { score: NaN }],
  ])("are marked with %s", (_, changes) => {
    expect(decodeExperience(encodeExperience("t#0", 1, { ...sent, ...changes })).isFinite).toBe(false);
  });

  it("are never read past their end, wherever they are cut or changed", () => {
    const bytes = encodeExperience("t#0", 1, sent);
    for (let length = 0; length < bytes.length; length++)
      expect(() => decodeExperience(bytes.subarray(0, length))).toThrow(
        expect.objectContaining({ code: "PROTOCOL" }),
      );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
        try {
          decodeExperience(noise);
        } catch (error) {
          expect(error).toMatchObject({ code: "PROTOCOL" });
        }
      }),
      { numRuns: 500 },
    );
  });

  it("prompts arrive as they were sent", () => {
    fc.assert(
      fc.property(plainRollout, ({ promptIndex, sampleIndex, experienceId, promptIds }) => {
        const prompt = { promptIndex, sampleIndex, experienceId, promptIds };
        const task = { task: { prompts: [toPromptRow(prompt)] } };
        const { task: got } = rollout.responseDeserialize(
          rollout.responseSerialize(task),
        ) as RolloutDirective__Output;
        expect(got?.prompts.map(fromPromptRow)).toStrictEqual([prompt]);
      }),
    );
  });
});

const sftRow = ids(0).chain((row) => bits(row.length).map((lossMask) => ({ ids: row, lossMask })));
const pair = fc.record({ chosen: ids(1), rejected: ids(1), promptTokens: fc.nat(9) });
const ppoRow = fc.tuple(ids(0), ids(1)).chain(([promptIds, responseIds]) => {
  const n = responseIds.length;
  return fc.record({
    promptIds: fc.constant(promptIds),
    responseIds: fc.constant(responseIds),
    logprobs: floats(n),
    values: floats(n),
    advantages: floats(n),
    returns: floats(n),
    actionMask: bits(n),
  });
});
const few = <T>(of: fc.Arbitrary<T>) => fc.array(of, { maxLength: 5 });

describe("micro-shards on the wire", () => {
  const anyShard: fc.Arbitrary<MicroShard> = fc.record({
    index: fc.nat(4095),
    rows: fc.oneof(
      few(sftRow).map((rows) => ({ kind: "sft" as const, rows })),
      few(pair).map((rows) => ({ kind: "reward" as const, rows })),
      few(ppoRow).map((rows) => ({ kind: "ppo" as const, rows })),
      fc.tuple(few(ppoRow), few(sftRow)).map(([rows, ptx]) => ({ kind: "ppo" as const, rows, ptx })),
    ),
  });

  it("arrive as they were sent, rows of any length included", () => {
    fc.assert(
      fc.property(anyShard, (sent) => {
        expect(fromShard(shardOverWire(sent))).toEqual(sent);
      }),
    );
  });

  it("are refused when any column is cut", () => {
    const shard = shardOverWire({
      index: 2,
      rows: {
        kind: "ppo",
        rows: [
          {
            promptIds: Int32Array.of(1, 2),
            responseIds: Int32Array.of(3, 4, 5),
            logprobs: new Float32Array(3),
            proximalLogprobs: new Float32Array(3),
            values: new Float32Array(3),
            advantages: new Float32Array(3),
            returns: new Float32Array(3),
            actionMask: new Uint8Array(3),
          },
        ],
      },
    });
    const columns = Object.entries(shard.ppo ?? {}).filter((entry): entry is [string, Buffer] =>
      Buffer.isBuffer(entry[1]),
    );
    expect(columns.map(([name]) => name)).toHaveLength(9);
    for (const [name, bytes] of columns) {
      for (const length of [0, bytes.length - 1]) {
        const cutShard = {
          ...shard,
          ppo: { ...shard.ppo, [name]: bytes.subarray(0, length) },
        } as Shard__Output;
        expect(() => fromShard(cutShard), `${name} cut to ${length}`).toThrow(
          expect.objectContaining({ code: "PROTOCOL" }),
        );
      }
    }
  });

  it("are refused without rows of any kind", () => {
    expect(() => fromShard({ index: 7 } as Shard__Output)).toThrow(
      /Shard 7: expected sft, reward or ppo rows/,
    );
  });
});

describe("columns", () => {
  it("do not share memory with the message, and start aligned wherever they lay in it", () => {
    const pooled = Buffer.alloc(13, 1);
    const column = float32Column(pooled.subarray(1, 9), "x");
    expect(column.byteOffset).toBe(0);
    pooled.fill(0);
    expect([...int32Column(Buffer.from(column.buffer), "x")]).toEqual([0x01010101, 0x01010101]);
    const bytes = uint8Column(pooled.subarray(0, 2), "x");
    pooled.fill(7);
    expect([...bytes]).toEqual([0, 0]);
  });

  it("ragged rows survive, and lengths that do not add up are refused", () => {
    fc.assert(
      fc.property(few(ids(0)), (rows) => {
        const { lengths, values } = toRagged(rows, Int32Array);
        expect(fromRagged(values, lengths, "x")).toEqual(rows);
        expect(() => fromRagged(values, Uint32Array.of(...lengths, 1), "x")).toThrow(
          expect.objectContaining({ code: "PROTOCOL" }),
        );
      }),
    );
  });
});

describe("gradients on the wire", () => {
  it("float32 keeps every bit", () => {
    fc.assert(
      fc.property(fc.float32Array(), (values) => {
        const got = new Float32Array(values.length);
        decodeGradient(Buffer.from(encodeGradient(values, "f32")), "f32", got, "b");
        expect(Buffer.from(got.buffer).equals(Buffer.from(values.slice().buffer))).toBe(true);
      }),
    );
  });

  /** The two bfloat16 numbers around x differ by 2^(exponent − 7): rounding errs by at most half of that. */
  it("bfloat16 takes half the bytes and rounds to the nearest, ties to even", () => {
    const through = (...values: number[]) => {
      const bytes = encodeGradient(Float32Array.from(values), "bf16");
      expect(bytes.byteLength).toBe(2 * values.length);
      const got = new Float32Array(values.length);
      decodeGradient(bytes, "bf16", got, "b");
      return [...got];
    };
    expect(through(1, -2.5, 0, 2 ** 127)).toEqual([1, -2.5, 0, 2 ** 127]);
    expect(through(1 + 2 ** -8)).toEqual([1]); // halfway between 1 and 1 + 2^-7: to the even one
    expect(through(1 + 3 * 2 ** -8)).toEqual([1 + 2 ** -6]); // halfway again, the even one is above
    expect(through(1 + 2 ** -8 + 2 ** -20)).toEqual([1 + 2 ** -7]);
    expect(through(NaN, Infinity, -Infinity, 3.4e38)).toEqual([NaN, Infinity, -Infinity, Infinity]);
    expect(Object.is(through(-0)[0], -0)).toBe(true);
    fc.assert(
      fc.property(fc.float({ noNaN: true, min: Math.fround(-1e38), max: Math.fround(1e38) }), (value) => {
        const unit = 2 ** (Math.floor(Math.log2(Math.max(Math.abs(value), 2 ** -126))) - 7);
        expect(Math.abs(through(value)[0] - value)).toBeLessThanOrEqual(unit / 2);
      }),
    );
  });

  it.each(["f32", "bf16"] as const)("%s buckets of another length are refused", (wire) => {
    const bytes = encodeGradient(new Float32Array(4), wire);
    for (const length of [3, 5]) {
      expect(() => decodeGradient(bytes, wire, new Float32Array(length), "bucket 2")).toThrow(
        expect.objectContaining({
          code: "PROTOCOL",
          message: expect.stringContaining("bucket 2: expected") as string,
        }),
      );
    }
  });
});
