import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createEngine } from "../../../src/engine/create-engine.js";
import type { Engine } from "../../../src/engine/engine.js";
import { loadModelDir } from "../../../src/models/checkpoint-dir.js";
import { layoutOf } from "../../../src/models/model-spec.js";
import { makeStopTable } from "../../../src/data/stop-table.js";
import { Generator, type Generated } from "../../../src/rollout/generator.js";
import { packageRoot } from "../../../src/shared/paths.js";
import { permutationOf, streamOf } from "../../../src/shared/rng.js";
import {
  EOS,
  fullLogits,
  logSoftmaxAt,
  SAMPLING,
  tinyArena,
  tinyParams,
  tinyPrompts,
  tinySpec,
} from "./tiny-models.js";

const spec = tinySpec();
const prompts = tinyPrompts(22);

/** Bytes, so that equality means equal bits. */
const fingerprint = ({ responseIds, logprobs, finishReason }: Generated) =>
  [...responseIds, finishReason, Buffer.from(logprobs.buffer).toString("hex")].join(" ");

const byKey = (answers: readonly Generated[]) =>
  new Map(answers.map((answer) => [answer.key, fingerprint(answer)]));

describe.each(["reference", "onnx"] as const)("generator on %s", (engineName) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = (await createEngine({ name: engineName, threads: 1 })).engine;
  });
  afterAll(() => engine.dispose());

  it("tokens and log-probability bits do not depend on batch, order, slots or what else was generated", async () => {
    const params = tinyArena(engine, spec, 3);
    const expected = byKey(
      await new Generator({ engine, spec, slots: 16, maxSequenceTokens: 48 }).generate(
        prompts,
        SAMPLING,
        params,
      ),
    );
    expect(new Set(expected.values()).size).toBeGreaterThan(15);
    for (const slots of engineName === "reference" ? [1, 5] : [1, 2, 3, 5, 8, 16, 32]) {
      const generator = new Generator({ engine, spec, slots, maxSequenceTokens: 48 });
      const order = permutationOf(prompts.length, slots, streamOf("order"));
      const subset = [...order].slice(0, slots < 4 ? 7 : prompts.length).map((i) => prompts[i]);
      for (const [key, print] of byKey(await generator.generate(subset, SAMPLING, params))) {
        expect(`${key} ${slots}: ${print}`).toBe(`${key} ${slots}: ${expected.get(key)}`);
      }
      generator.dispose();
    }
  });

  it("greedy decoding is the argmax of a full forward pass at every step", async () => {
    const params = tinyArena(engine, spec, 4);
    const generator = new Generator({ engine, spec, slots: 4, maxSequenceTokens: 48 });
    const answers = await generator.generate(prompts.slice(0, 6), { ...SAMPLING, greedy: true }, params);
    for (const [i, { responseIds, logprobs }] of answers.entries()) {
      const ids = [...prompts[i].promptIds, ...responseIds];
      const at = await fullLogits(engine, spec, params, ids);
      responseIds.forEach((token, t) => {
        const logits = at(prompts[i].promptIds.length - 1 + t);
        expect(token).toBe(logits.indexOf(Math.max(...logits)));
        expect(Math.abs(logprobs[t] - logSoftmaxAt(logits, 1, token))).toBeLessThan(1e-5);
      });
    }
  });

  it("the repetition penalty meets what prompt and answer hold", async () => {
    const params = tinyArena(engine, spec, 4);
    const generator = new Generator({ engine, spec, slots: 4, maxSequenceTokens: 48 });
    const sampling = { ...SAMPLING, greedy: true, repetitionPenalty: 1.7 };
    const answers = await generator.generate(prompts.slice(0, 6), sampling, params);
    for (const [i, { responseIds }] of answers.entries()) {
      const ids = [...prompts[i].promptIds, ...responseIds];
      const at = await fullLogits(engine, spec, params, ids);
      responseIds.forEach((token, t) => {
        const length = prompts[i].promptIds.length + t;
        const logits = Array.from(at(length - 1));
        for (const id of new Set(ids.slice(0, length))) logits[id] *= logits[id] < 0 ? 1.7 : 1 / 1.7;
        expect(token).toBe(logits.indexOf(Math.max(...logits)));
      });
    }
    generator.dispose();
  });

  it("returned log-probabilities equal a full forward pass at the sampling temperature within 1e-5", async () => {
    const params = tinyArena(engine, spec, 5);
    const generator = new Generator({ engine, spec, slots: 8, maxSequenceTokens: 48 });
    const answers = await generator.generate(prompts.slice(0, 10), { ...SAMPLING, temperature: 0.7 }, params);
    for (const [i, { responseIds, logprobs }] of answers.entries()) {
      const at = await fullLogits(engine, spec, params, [...prompts[i].promptIds, ...responseIds]);
      responseIds.forEach((token, t) => {
        const expected = logSoftmaxAt(at(prompts[i].promptIds.length - 1 + t), 0.7, token);
        expect(Math.abs(logprobs[t] - expected)).toBeLessThan(1e-5);
      });
    }
  });

  it("new weights take effect without new programs", async () => {
    const params = tinyArena(engine, spec, 6);
    const generator = new Generator({ engine, spec, slots: 4, maxSequenceTokens: 48 });
    const before = await generator.generate(prompts.slice(0, 4), SAMPLING, params);
    await params.write(tinyParams(spec, 7));
    const after = await generator.generate(prompts.slice(0, 4), SAMPLING, params);
    expect(byKey(after)).not.toEqual(byKey(before));
    const fresh = new Generator({ engine, spec, slots: 4, maxSequenceTokens: 48 });
    const again = await fresh.generate(prompts.slice(0, 4), SAMPLING, tinyArena(engine, spec, 7));
    expect(byKey(after)).toEqual(byKey(again));
  });

  it.each(["opt-f16", "opt-350m", "opt-untied", "llama-sharded", "mistral", "qwen2-bf16", "qwen3"])(
    "%s: cached decoding equals a full forward pass",
    async (name) => {
      const model = await loadModelDir(`${packageRoot}/test/fixtures/models/${name}`, "lm");
      const params = engine.createArena(layoutOf(model.spec), model.values);
      const generator = new Generator({
        engine,
        spec: model.spec,
        slots: 3,
        maxSequenceTokens: 24,
        eosIds: [],
      });
      const requests = prompts
        .slice(0, 5)
        .map(({ key, promptIds }) => ({ key, promptIds: promptIds.slice(0, 11) }));
      const answers = await generator.generate(requests, { ...SAMPLING, maxNewTokens: 8 }, params);
      for (const [i, { responseIds, logprobs }] of answers.entries()) {
        const { promptIds } = requests[i];
        const at = await fullLogits(engine, model.spec, params, [...promptIds, ...responseIds]);
        responseIds.forEach((token, t) => {
          expect(Math.abs(logprobs[t] - logSoftmaxAt(at(promptIds.length - 1 + t), 1, token))).toBeLessThan(
            2e-5,
          );
        });
      }
    },
  );
});

describe("generator", () => {
  let engine: Engine;
  let generator: Generator;
  beforeAll(async () => {
    engine = (await createEngine({ name: "onnx", threads: 1 })).engine;
    generator = new Generator({ engine, spec, slots: 4, maxSequenceTokens: 24 });
  });
  afterAll(() => engine.dispose());
  const params = () => tinyArena(engine, spec, 3);

  it("ends an answer at EOS, which it keeps, and never forges one", async () => {
    const many = Array.from({ length: 60 }, (_, i) => ({
      key: `1/${i}/0`,
      promptIds: Int32Array.of(2 + (i % 30)),
    }));
    const answers = await generator.generate(many, SAMPLING, params());
    const reasons = new Set(answers.map(({ finishReason }) => finishReason));
    expect(reasons).toEqual(new Set(["eos", "length"]));
    for (const { responseIds, finishReason, logprobs } of answers) {
      expect(logprobs.length).toBe(responseIds.length);
      expect(responseIds.indexOf(EOS)).toBe(finishReason === "eos" ? responseIds.length - 1 : -1);
      if (finishReason === "length") expect(responseIds.length).toBe(SAMPLING.maxNewTokens);
    }
  });

  it("refills finished slots: answers of mixed lengths take no more decode runs than they must, in their order", async () => {
    const SLOTS = 4;
    const many = tinyPrompts(40);
    const generate = async (prefillRows: number) => {
      let runs = 0;
      const onTokens = () => void runs++;
      const one = new Generator({
        engine,
        spec,
        slots: SLOTS,
        maxSequenceTokens: 48,
        prefillRows,
        stopIds: [2, 3, 4, 5, 6],
        onTokens,
      });
      const answers = await one.generate(many, { ...SAMPLING, temperature: 4, maxNewTokens: 20 }, params());
      one.dispose();
      // The first token of each answer comes from the run that reads its prompt.
      return { runs, lengths: answers.map(({ responseIds }) => responseIds.length - 1) };
    };
    const { runs, lengths } = await generate(1);
    expect(new Set(lengths).size).toBeGreaterThan(5);
    const load = new Array<number>(SLOTS).fill(0);
    for (const length of lengths) load[load.indexOf(Math.min(...load))] += length;
    const ideal = Math.max(...load);
    expect(runs - many.length).toBe(ideal); // one run for each prompt, the others decode
    let withoutRefill = 0;
    for (let i = 0; i < lengths.length; i += SLOTS) withoutRefill += Math.max(...lengths.slice(i, i + SLOTS));
    expect(withoutRefill).toBeGreaterThan(1.2 * ideal);

    // Waiting until two prompts can be read together leaves at most one slot idle while any wait.
    const paired = await generate(2);
    expect(paired.lengths).toEqual(lengths);
    const total = lengths.reduce((sum, length) => sum + length, 0);
    const atMost = total / (SLOTS - 1) + Math.max(...lengths);
    expect(paired.runs).toBeLessThanOrEqual(many.length + atMost);
    expect(atMost).toBeLessThan(withoutRefill);
  });

  it("cuts an answer where the slot is full", async () => {
    const promptIds = Int32Array.from({ length: 20 }, (_, i) => 2 + i);
    const [answer] = await generator.generate(
      [{ key: "a", promptIds }],
      { ...SAMPLING, minNewTokens: 12 },
      params(),
    );
    expect(answer.responseIds.length).toBe(4);
    expect(answer.finishReason).toBe("length");
  });

  it("forbids EOS before minNewTokens", async () => {
    const many = Array.from({ length: 40 }, (_, i) => ({
      key: `1/${i}/0`,
      promptIds: Int32Array.of(2 + (i % 30)),
    }));
    const answers = await generator.generate(many, { ...SAMPLING, minNewTokens: 6 }, params());
    expect(Math.min(...answers.map(({ responseIds }) => responseIds.length))).toBeGreaterThan(6);
  });

  it("ends an answer at any of several end tokens, and forbids all of them before minNewTokens", async () => {
    const eosIds = [EOS, 7];
    const ending = new Generator({ engine, spec, slots: 4, maxSequenceTokens: 24, eosIds });
    const many = Array.from({ length: 60 }, (_, i) => ({
      key: `1/${i}/0`,
      promptIds: Int32Array.of(8 + (i % 30)),
    }));
    const answers = await ending.generate(many, { ...SAMPLING, minNewTokens: 4 }, params());
    const last = new Set<number>();
    for (const { responseIds, finishReason } of answers) {
      const at = responseIds.findIndex((id) => eosIds.includes(id));
      expect(at).toBe(finishReason === "eos" ? responseIds.length - 1 : -1);
      expect(responseIds.length).toBeGreaterThan(4);
      if (finishReason === "eos") last.add(responseIds[at]);
    }
    expect(last).toEqual(new Set(eosIds));
    ending.dispose();
  });

  it("says what would lower a cache that is larger than memory", () => {
    const wide = { ...spec, contextTokens: 2 ** 24, layers: 64 };
    expect(() => new Generator({ engine, spec: wide, slots: 64, maxSequenceTokens: 2 ** 24 })).toThrow(
      expect.objectContaining({
        code: "CONFIG",
        message: expect.stringMatching(
          /cache for 64 sequences of 16777216 tokens takes \d+\.\d GiB, which cannot be allocated; lower .*--max-new-tokens/,
        ) as string,
      }),
    );
  });

  it("reports a stop token as stop", async () => {
    const stopping = new Generator({
      engine,
      spec,
      slots: 4,
      maxSequenceTokens: 24,
      eosIds: [],
      stopIds: [EOS],
    });
    const many = Array.from({ length: 60 }, (_, i) => ({
      key: `1/${i}/0`,
      promptIds: Int32Array.of(2 + (i % 30)),
    }));
    const answers = await stopping.generate(many, SAMPLING, params());
    expect(new Set(answers.map(({ finishReason }) => finishReason))).toEqual(new Set(["stop", "length"]));
  });

  it("ends an answer with the token that completes a stop string, whatever else is generated, and changes no bit before", async () => {
    // Token t writes the letter t mod 5: stop strings take two or three tokens.
    const letters = Array.from({ length: spec.vocabularySize }, (_, id) => "abcde"[id % 5]);
    const bytes = new Map(letters.map((letter, id) => [id, new TextEncoder().encode(letter)]));
    const stops = ["ab", "cec"];
    const table = makeStopTable(stops, bytes);
    const many = Array.from({ length: 60 }, (_, i) => ({
      key: `1/${i}/0`,
      promptIds: Int32Array.of(2 + (i % 30)),
    }));
    const free = await generator.generate(many, SAMPLING, params());
    const stopped = await generator.generate(many, SAMPLING, params(), table);
    const reasons = { eos: 0, stop: 0, length: 0 };
    stopped.forEach(({ responseIds, logprobs, finishReason }, i) => {
      const text = [...free[i].responseIds].map((id) => letters[id]).join("");
      const ends = stops
        .map((stop) => text.indexOf(stop) + stop.length)
        .filter((end, s) => end >= stops[s].length);
      const length = Math.min(...ends, text.length);
      expect(responseIds).toEqual(free[i].responseIds.slice(0, length));
      expect(logprobs).toEqual(free[i].logprobs.slice(0, length));
      const isEos = responseIds.at(-1) === EOS;
      expect(finishReason).toBe(isEos ? "eos" : ends.length > 0 ? "stop" : "length");
      reasons[finishReason]++;
    });
    expect(Math.min(reasons.eos, reasons.stop, reasons.length)).toBeGreaterThan(3);

    const alone = await generator.generate([many[17]], SAMPLING, params(), table);
    expect(fingerprint(alone[0])).toBe(fingerprint(stopped[17]));
    const again = await generator.generate(many, SAMPLING, params());
    expect(again.map(fingerprint)).toEqual(free.map(fingerprint));
    const late = await generator.generate(many, { ...SAMPLING, minNewTokens: 6 }, params(), table);
    expect(Math.min(...late.map(({ responseIds }) => responseIds.length))).toBeGreaterThan(6);
  });

  it("samples differently for another seed or key", async () => {
    const promptIds = Int32Array.of(5, 9);
    const run = async (key: string, seed: number) =>
      (await generator.generate([{ key, promptIds }], { ...SAMPLING, seed, minNewTokens: 12 }, params()))[0]
        .responseIds;
    const first = await run("0/0/0", 1);
    expect(await run("0/0/0", 1)).toEqual(first);
    expect(await run("0/0/1", 1)).not.toEqual(first);
    expect(await run("0/0/0", 2)).not.toEqual(first);
  });

  it.each([
    ["an empty prompt", [{ key: "a", promptIds: new Int32Array(0) }], /prompt a: is empty/],
    ["an overlong prompt", [{ key: "a", promptIds: new Int32Array(24) }], /24 tokens leave no room/],
    ["a token outside the vocabulary", [{ key: "a", promptIds: Int32Array.of(40) }], /token 40 is outside/],
    ["a repeated key", ["a", "a"].map((key) => ({ key, promptIds: Int32Array.of(3) })), /two prompts/],
  ])("refuses %s", async (_name, bad, message) => {
    await expect(generator.generate(bad, SAMPLING, params())).rejects.toThrow(message);
  });

  it("ends an answer at the first token without a distribution, and says so with its log-probability", async () => {
    const broken = params();
    await broken.write(new Float32Array(layoutOf(spec).size).fill(NaN));
    const answers = await generator.generate(prompts.slice(0, 2), SAMPLING, broken);
    expect(answers.map(({ logprobs }) => [...logprobs])).toEqual([[NaN], [NaN]]);
    expect(answers.map(({ responseIds }) => responseIds.length)).toEqual([1, 1]);
  });
});
