import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import {
  generateDataset,
  MIN_MARGIN,
  toJsonl,
  type QuickstartRow,
} from "../../../examples/quickstart/generate.js";
import { goldParts, goldScore } from "../../../examples/quickstart/gold.js";
import { parsePrompt, promptOf, SITUATION_COUNT, situationAt } from "../../../examples/quickstart/world.js";
import { configSchema } from "../../../src/config/schema.js";
import { loadRlhfData } from "../../../src/data/datasets.js";
import { PHASES } from "../../../src/data/types.js";
import { packageRoot } from "../../../src/shared/paths.js";
import { inlineTokenizer } from "../data/inline-tokenizer.js";

const folder = join(packageRoot, "examples/quickstart");
const shipped = gunzipSync(readFileSync(join(folder, "data.jsonl.gz"))).toString("utf8");
let rows: QuickstartRow[];
beforeAll(() => {
  rows = generateDataset({ rows: 6000, seed: 1 });
});
const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

const PROMPT = "From Anna: my blue lamp is broken, please send a refund. Reply:";
const BEST = " Hi Anna, sorry about your lamp. We will send a refund. Kind regards.";

describe("goldScore, by hand", () => {
  it.each<[number, string, string]>([
    [1, "a full answer", BEST],
    [
      1,
      "another full answer",
      " Dear Anna, thanks for asking about your lamp. You will get a refund. Best wishes.",
    ],
    [0.75, "nobody greeted by name", BEST.replace("Anna", "there")],
    [0.5, "the wrong person greeted", BEST.replace("Anna", "Ben")],
    [0.75, "a second person named", BEST.replace("sorry", "Ben, sorry")],
    [
      0.75,
      "the name is there but not greeted",
      " Sorry Anna, sorry about your lamp. We will send a refund. Kind regards.",
    ],
    [0.8, "no product", BEST.replace("your lamp", "this")],
    [0.7, "another product", BEST.replace("lamp", "chair")],
    [0.75, "no promise", BEST.replace("send a refund", "look into it")],
    [0.6, "another promise", BEST.replace("refund", "repair")],
    [0.85, "the right promise and another", BEST.replace("a refund", "a refund or repair")],
    [0.85, "not polite", BEST.replace("sorry", "we read")],
    [0.85, "no closing", BEST.replace(" Kind regards.", "")],
    [0.85, "a closing that breaks off", `${BEST} and then`],
    [
      0.6,
      "a sentence said twice: 4 pairs of words again",
      BEST.replace("We will send a refund.", "We will send a refund. We will send a refund."),
    ],
    [0, "nothing", ""],
    [0.2, "three words: 0.45 earned, five words short", " Hi Anna lamp"],
    [
      0.1,
      "the same four words again and again: 0.6 earned, the cap of 0.5 lost",
      " Anna lamp refund sorry".repeat(4),
    ],
  ])("%f: %s", (score, _, answer) => {
    expect(goldScore(PROMPT, answer)).toBeCloseTo(score, 9);
  });

  it("listing every name loses more than the right one earns", () => {
    expect(goldScore(PROMPT, BEST.replace("Anna,", "Anna, Ben, Carla, Emma,"))).toBeLessThan(
      goldScore(PROMPT, BEST.replace("Anna", "there")),
    );
  });

  it("does not care about case or spacing", () => {
    expect(goldScore(PROMPT, `  ${BEST.toUpperCase().replaceAll(" ", "  ")} `)).toBe(1);
  });

  it("stays in [0, 1] for any text", () => {
    const words = fc.constantFrom(
      ..."Hi Anna Ben lamp chair refund repair sorry thanks Kind regards. and we will a , .".split(" "),
    );
    const answer = fc.oneof(
      fc.string(),
      fc.array(words, { maxLength: 60 }).map((list) => list.join(" ")),
    );
    fc.assert(
      fc.property(answer, fc.nat(SITUATION_COUNT - 1), (text, number) => {
        const score = goldScore(promptOf(situationAt(number)), text);
        expect(score).toBeGreaterThanOrEqual(0);
        expect(score).toBeLessThanOrEqual(1);
      }),
    );
  });

  it("refuses a prompt of another world", () => {
    expect(() => goldScore("Hello?", BEST)).toThrow(
      /not a quickstart prompt: "Hello\?"; expected "From NAME/,
    );
  });
});

describe("the world", () => {
  it("reads back every prompt it writes, and no two are alike", () => {
    const prompts = Array.from({ length: SITUATION_COUNT }, (_, i) => promptOf(situationAt(i)));
    expect(new Set(prompts).size).toBe(11_520);
    for (let i = 0; i < prompts.length; i += 7) expect(parsePrompt(prompts[i])).toEqual(situationAt(i));
  });
});

describe("generateDataset", () => {
  it("writes the same bytes for the same rows and seed, and those are the shipped ones", () => {
    expect(toJsonl(rows)).toBe(toJsonl(generateDataset({ rows: 6000, seed: 1 })));
    const digest = (text: string): string => createHash("sha256").update(text).digest("hex");
    expect(digest(shipped)).toBe(digest(toJsonl(rows)));
    expect(toJsonl(generateDataset({ rows: 100, seed: 2 }))).not.toBe(toJsonl(rows.slice(0, 100)));
  });

  it("a shorter data set is the beginning of a longer one", () => {
    expect(generateDataset({ rows: 50, seed: 1 })).toEqual(rows.slice(0, 50));
  });

  it("pairs differ by the margin; about 2 % are labelled the wrong way round", () => {
    const margins = rows.map(
      (row) => goldScore(row.prompt, row.chosen) - goldScore(row.prompt, row.rejected),
    );
    for (const margin of margins) expect(Math.abs(margin)).toBeGreaterThanOrEqual(MIN_MARGIN - 1e-9);
    const noise = margins.filter((margin) => margin < 0).length / rows.length;
    expect(noise).toBeGreaterThan(0.01);
    expect(noise).toBeLessThan(0.03);
    const clean = generateDataset({ rows: 500, seed: 1, labelNoise: 0 });
    for (const row of clean)
      expect(goldScore(row.prompt, row.chosen)).toBeGreaterThan(goldScore(row.prompt, row.rejected));
  });

  it("leaves PPO headroom: chosen answers score about 0.6, and few are perfect", () => {
    const chosen = rows.map((row) => goldScore(row.prompt, row.chosen));
    expect(mean(chosen)).toBeGreaterThan(0.55);
    expect(mean(chosen)).toBeLessThan(0.66);
    expect(mean(rows.map((row) => goldScore(row.prompt, row.rejected)))).toBeLessThan(0.35);
    const perfect = chosen.filter((score) => score === 1).length / rows.length;
    expect(perfect).toBeGreaterThan(0.03);
    expect(perfect).toBeLessThan(0.12);
  });

  it("every criterion is met about half of the time, before the better answer is chosen", () => {
    const parts = rows.flatMap((row) => [
      goldParts(row.prompt, row.chosen),
      goldParts(row.prompt, row.rejected),
    ]);
    for (const key of [
      "greetsPerson",
      "mentionsProduct",
      "promisesRequest",
      "isPolite",
      "endsWell",
    ] as const) {
      expect(Math.abs(mean(parts.map((part) => Number(part[key]))) - 0.5)).toBeLessThan(0.05);
    }
    // Seen, but seldom: the room for reward hacking.
    for (const key of ["wrongNames", "wrongProducts", "wrongRequests"] as const) {
      const rate = mean(parts.map((part) => part[key]));
      expect(rate).toBeGreaterThan(0.005);
      expect(rate).toBeLessThan(0.06);
    }
  });
});

describe("the shipped files", () => {
  it("every row of the data fits the config, with no unknown word", async () => {
    const config = configSchema.parse(parse(readFileSync(join(folder, "config.yaml"), "utf8")));
    const tokenizer = await inlineTokenizer(join(folder, "tokenizer"));
    expect(tokenizer.info).toMatchObject({ vocabSize: 79, eosId: 0, padId: 1, padIsEos: false });
    const data = { ...config.data, path: join(packageRoot, config.data.path) };
    const { sft, reward, ppo, report } = await loadRlhfData(data, config.seed, PHASES, tokenizer);
    expect(report).toMatchObject({
      rows: 6000,
      skipped: {},
      used: { sft: 1200, reward: 2400, ppo: 2400 },
      duplicatePrompts: 0,
    });
    const sequences = [
      ...sft.train.map((row) => row.ids),
      ...reward.train.flatMap((pair) => [pair.chosen, pair.rejected]),
    ];
    for (const ids of sequences) expect(ids.includes(2)).toBe(false);
    expect(Math.max(...sequences.map((ids) => ids.length))).toBeLessThanOrEqual(
      config.model.fresh.contextTokens,
    );
    expect(16 + config.generation.maxNewTokens).toBeLessThanOrEqual(config.model.fresh.contextTokens);
    const [prompt, answer] = await tokenizer.decode([
      ppo.train[0].promptIds,
      reward.train[0].chosen.slice(reward.train[0].promptTokens),
    ]);
    expect(prompt).toBe(ppo.train[0].promptText);
    expect(shipped).toContain(`"chosen":"${answer}"`);
  });

  it("the other example is a valid config too", () => {
    const text = readFileSync(join(packageRoot, "examples/hh-rlhf.yaml"), "utf8");
    expect(configSchema.parse(parse(text)).model.tokenizer.type).toBe("train");
  });
});
