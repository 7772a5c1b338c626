import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createOnnxEngine } from "../../../src/engine/onnx/onnx-engine.js";
import { createReferenceEngine } from "../../../src/engine/reference.js";
import type { Arena, Engine } from "../../../src/engine/engine.js";
import { Scorer, type ScorableSequence } from "../../../src/rollout/scorer.js";
import { tokenValues } from "../models/whole-sequences.js";
import { fullLogits, logSoftmaxAt, runUnbatched, tinyArena, tinyPrompts, tinySpec } from "./tiny-models.js";

const lm = tinySpec("lm");
const scalar = tinySpec("scalar");

/** 9 sequences of 3 to 45 tokens: both buckets, a short last group. */
const sequences: ScorableSequence[] = tinyPrompts(9).map(({ promptIds }, i) => ({
  promptIds,
  responseIds: Int32Array.from({ length: 2 + ((i * 11) % 24) }, (_, t) => 2 + ((t * 5 + i) % 38)),
}));

let engine: Engine;
let actor: Arena;
let judge: Arena;
beforeAll(() => {
  engine = createReferenceEngine();
  actor = tinyArena(engine, lm, 3);
  judge = tinyArena(engine, scalar, 4);
});
afterAll(() => engine.dispose());

const idsOf = ({ promptIds, responseIds }: ScorableSequence) => [...promptIds, ...responseIds];

describe("scorer", () => {
  it("log-probabilities belong to the response tokens and equal an unbatched forward within 1e-5", async () => {
    const scored = await new Scorer(engine).logprobs({ spec: lm, params: actor }, sequences, 0.8);
    for (const [i, sequence] of sequences.entries()) {
      const at = await fullLogits(engine, lm, actor, idsOf(sequence));
      expect(scored[i].length).toBe(sequence.responseIds.length);
      sequence.responseIds.forEach((token, t) => {
        const expected = logSoftmaxAt(at(sequence.promptIds.length - 1 + t), 0.8, token);
        expect(Math.abs(scored[i][t] - expected)).toBeLessThan(1e-5);
      });
    }
  });

  it("values are read before each response token, scores at the last one", async () => {
    const scorer = new Scorer(engine);
    const values = await scorer.values({ spec: scalar, params: judge }, sequences);
    const scores = await scorer.scores({ spec: scalar, params: judge }, sequences);
    for (const [i, sequence] of sequences.entries()) {
      const { out } = await runUnbatched(engine, scalar, judge, idsOf(sequence), "values", (params, ids) => ({
        out: tokenValues(scalar, params, ids),
      }));
      const start = sequence.promptIds.length - 1;
      expect(values[i].length).toBe(sequence.responseIds.length);
      values[i].forEach((value, t) => expect(Math.abs(value - out[start + t])).toBeLessThan(1e-5));
      expect(Math.abs(scores[i] - out[out.length - 1])).toBeLessThan(1e-5);
      expect(Math.abs(out[out.length - 1] - out[out.length - 2])).toBeGreaterThan(1e-3); // one off would show
    }
  });

  it("bits do not depend on which sequences are scored together, in which order", async () => {
    const scorer = new Scorer(engine);
    const together = await scorer.logprobs({ spec: lm, params: actor }, sequences, 1);
    const reversed = await scorer.logprobs({ spec: lm, params: actor }, [...sequences].reverse(), 1);
    for (const [i, sequence] of sequences.entries()) {
      const [alone] = await scorer.logprobs({ spec: lm, params: actor }, [sequence], 1);
      expect(alone).toEqual(together[i]);
      expect(reversed[sequences.length - 1 - i]).toEqual(together[i]);
    }
  });

  it("bits do not depend on how many passes run side by side", async () => {
    const scoresWith = async (threads: number) => {
      const onnx = await createOnnxEngine({ threads });
      const scorer = new Scorer(onnx, Infinity, 64);
      const logprobs = await scorer.logprobs(
        { spec: lm, params: tinyArena(onnx, lm, 3) },
        [...sequences, ...sequences],
        0.8,
      );
      await onnx.dispose();
      return logprobs;
    };
    expect(await scoresWith(3)).toEqual(await scoresWith(1));
  });

  it("refuses a sequence longer than the context", async () => {
    const long = { promptIds: new Int32Array(60), responseIds: new Int32Array(5) };
    await expect(new Scorer(engine).values({ spec: scalar, params: judge }, [long])).rejects.toThrow(
      /a sequence of 65 tokens exceeds 64, the model's context/,
    );
  });

  it("scores nothing for no sequences", async () => {
    expect(await new Scorer(engine).scores({ spec: scalar, params: judge }, [])).toEqual([]);
  });
});
