import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { loadRlhfData, type RlhfData } from "../../../src/data/datasets.js";
import type { DataConfig } from "../../../src/data/rows.js";
import { splitPhases } from "../../../src/data/split.js";
import { writeWordTokenizer } from "../../../src/data/tokenizer-files.js";
import { PHASES, type PhaseName, type TextTokenizer } from "../../../src/data/types.js";
import { inlineTokenizer } from "./inline-tokenizer.js";
import { dataConfig, jsonLines, tempFolder, writeTemp } from "./temp-folder.js";

const folder = tempFolder();
let tokenizer: TextTokenizer;
let id: (word: string) => number;
beforeAll(async () => {
  const words = ["ask", "tell", "good", "bad", "fine", "worse", "User", "more"];
  const tokens = await writeWordTokenizer(`${folder}/tokenizer`, [
    words.join(" "),
    ...words.map((word) => ` ${word}`),
    ":",
    "User",
  ]);
  tokenizer = await inlineTokenizer(`${folder}/tokenizer`);
  id = (word) => tokens.indexOf(word.replace(" ", "Ġ"));
});
const EOS = 0;

const pair = (prompt = "ask", chosen = " good", rejected = " bad") => ({ prompt, chosen, rejected });
function load(
  rows: readonly unknown[],
  overrides: Partial<DataConfig> = {},
  stages: readonly PhaseName[] = PHASES,
  lossOn?: "answer" | "all",
): Promise<RlhfData> {
  return loadRlhfData(dataConfig(writeTemp(folder, jsonLines(rows)), overrides), 1, stages, tokenizer, {
    lossOn,
  });
}
const only = (phase: PhaseName): Partial<DataConfig> => ({
  split: PHASES.map((name) => Number(name === phase)) as [number, number, number],
  evalFraction: 0,
});

describe("row layouts, by hand", () => {
  it("sft rows are prompt + chosen + eos, and the mask covers answer and eos", async () => {
    const { sft } = await load([pair("ask more", " good fine")], only("sft"), ["sft"]);
    expect([...sft.train[0].ids]).toEqual([id("ask"), id(" more"), id(" good"), id(" fine"), EOS]);
    expect([...sft.train[0].lossMask]).toEqual([0, 0, 1, 1, 1]);
  });

  it("lossOn all trains on every token", async () => {
    const { sft } = await load([pair("ask more", " good")], only("sft"), ["sft"], "all");
    expect([...sft.train[0].lossMask]).toEqual([1, 1, 1, 1]);
  });

  it("pairs share exactly promptTokens ids and both end in eos", async () => {
    const { reward } = await load([pair("ask", " good", " good worse")], only("reward"), ["reward"]);
    const [{ chosen, rejected, promptTokens }] = reward.train;
    expect(promptTokens).toBe(1);
    expect([...chosen]).toEqual([id("ask"), id(" good"), EOS]);
    expect([...rejected]).toEqual([id("ask"), id(" good"), id(" worse"), EOS]);
  });

  it("prompts carry ids, text as the model sees it, and an index that goes on into the held-out rows", async () => {
    const rows = ["ask", "tell", "more", "good"].map((prompt) => ({ prompt }));
    const data = { ...only("ppo"), evalFraction: 0.25, promptTemplate: "User: {prompt}" };
    const { ppo } = await load(rows, data, ["ppo"]);
    expect([...ppo.train, ...ppo.eval].map((row) => row.promptIndex)).toEqual([0, 1, 2, 3]);
    expect(ppo.eval).toHaveLength(1);
    for (const { promptIds, promptText } of [...ppo.train, ...ppo.eval]) {
      expect(promptText).toMatch(/^User: \w+$/);
      expect([...promptIds]).toEqual([id("User"), id(":"), id(promptText.slice(5))]);
    }
  });

  it("a template holding $& or the like is text, and one without {prompt} is refused", async () => {
    const { ppo } = await load([{ prompt: "$&" }], { ...only("ppo"), promptTemplate: "ask {prompt}$1" }, [
      "ppo",
    ]);
    expect(ppo.train[0].promptText).toBe("ask $&$1");
    await expect(load([pair()], { promptTemplate: "ask" })).rejects.toThrow(
      'data.promptTemplate "ask" holds {prompt} 0 times; expected once',
    );
  });

  it("special tokens of the template are control tokens, those of the prompt are not", async () => {
    const { ppo } = await load([{ prompt: "<pad>" }], { ...only("ppo"), promptTemplate: "<eos>{prompt}" }, [
      "ppo",
    ]);
    const ids = [...ppo.train[0].promptIds];
    expect(ids[0]).toBe(EOS);
    expect(ids.slice(1)).not.toContain(tokenizer.info.padId);
  });
});

describe("what falls out is counted", () => {
  it("length limits: the prompt's own tokens, the answer's with eos; nothing is cut", async () => {
    const rows = [
      pair("ask more"),
      pair("ask more more"),
      pair("ask", " good fine"),
      pair("ask", " good", " bad worse worse"),
    ];
    const { reward, report } = await load(
      rows,
      { ...only("reward"), maxPromptTokens: 2, maxResponseTokens: 3 },
      ["reward"],
    );
    expect(report.skipped).toEqual({ "prompt-too-long": 1, "answer-too-long": 1 });
    expect(reward.train.map(({ chosen }) => chosen.length).sort()).toEqual([4, 4]);
  });

  it("pairs equal as text, and pairs equal only as ids, are both identical", async () => {
    const rows = [pair("ask", " good", " good"), pair("ask", " Zoe", " Zed"), pair()];
    const { reward, report } = await load(rows, only("reward"), ["reward"]);
    expect(reward.train).toHaveLength(1);
    expect(report.skipped).toEqual({ "identical-pair": 2 });
  });

  it("empty prompts, empty answers and missing rejected answers", async () => {
    const rows = [pair(" "), pair("ask", ""), { prompt: "ask", chosen: " good", rejected: null }, pair()];
    const { report } = await load(rows, only("reward"), ["reward"]);
    expect(report.skipped).toEqual({ "empty-prompt": 1, "empty-answer": 1, "no-rejected": 1 });
  });

  it("a row that only the reward stage could not use serves the others", async () => {
    const rows = Array.from({ length: 5 }, () => ({ prompt: "ask", chosen: " good", rejected: " good" }));
    expect((await load(rows, only("sft"), ["sft"])).sft.train).toHaveLength(5);
    expect((await load(rows, only("ppo"), ["ppo"])).ppo.train).toHaveLength(5);
  });

  it("rows = used + skipped, whatever the file holds", async () => {
    const prompt = fc.constantFrom("ask", "ask more", "ask more more more", "", " ");
    const answer = fc.option(fc.constantFrom(" good", " bad", " good fine worse", "", " Zoe", " Zed"), {
      nil: undefined,
    });
    const good = fc.record({ prompt, chosen: answer, rejected: answer });
    const row = fc.oneof(
      { weight: 6, arbitrary: good.map((value) => JSON.stringify(value)) },
      fc.constantFrom("oops", "[]", '{"prompt":1}', "{}", "", '{"prompt":"\\ud800"}'),
    );
    const usable = Array.from({ length: 12 }, () => JSON.stringify(pair()));
    const cases = fc.record({
      lines: fc.array(row, { maxLength: 40 }),
      seed: fc.nat(1000),
      stages: fc.subarray([...PHASES], { minLength: 1 }),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ lines, seed, stages }) => {
        const content = [...usable, ...lines].join("\n");
        const data = dataConfig(writeTemp(folder, content, "balance.jsonl"), {
          onBadRow: "skip",
          maxPromptTokens: 2,
          maxResponseTokens: 3,
        });
        const loaded = await loadRlhfData(data, seed, stages, tokenizer).catch((error: Error) => error);
        if (loaded instanceof Error) {
          expect(loaded.message).toMatch(/no training rows left/); // a small phase may lose all its rows
          return;
        }
        const { report } = loaded;
        const used = PHASES.reduce((sum, phase) => sum + report.used[phase], 0);
        const skipped = Object.values(report.skipped).reduce((sum, count) => sum + count, 0);
        expect(used + skipped).toBe(report.rows);
        expect(report.rows).toBe(content.split("\n").filter((line) => line !== "").length);
        for (const phase of PHASES) {
          expect(loaded[phase].train.length + loaded[phase].eval.length).toBe(report.used[phase]);
          if (!stages.includes(phase)) expect(report.used[phase]).toBe(0);
        }
      }),
      { numRuns: 40 },
    );
  });

  it("the summary names every number a person checks", async () => {
    const rows = [...Array.from({ length: 19 }, () => pair()), pair("ask more more")];
    const { report } = await load(rows, { maxPromptTokens: 2 });
    expect(report).toMatchObject({ rows: 20, format: "prompt+chosen+rejected", duplicatePrompts: 18 });
    expect(report.summary).toMatch(
      /^20 rows \(prompt\+chosen\+rejected\): sft \d \+ 1 held out, reward \d \+ 1 held out, ppo \d \+ 1 held out; skipped: prompt-too-long 1$/,
    );
  });
});

describe("the split of a run", () => {
  const rows = Array.from({ length: 40 }, (_, i) => ({
    prompt: `ask${" more".repeat(i)}`,
    chosen: " good",
    rejected: " bad",
  }));
  const data: Partial<DataConfig> = { maxPromptTokens: 64 };

  it("follows splitPhases, row by row", async () => {
    const { ppo } = await load(rows, data);
    const parts = splitPhases({ rows: 40, shares: [2, 4, 4], evalFraction: 0.1, seed: 1 });
    expect(ppo.train.map((row) => row.promptIds.length - 1)).toEqual([...parts.ppo.train]);
    expect(ppo.eval.map((row) => row.promptIds.length - 1)).toEqual([...parts.ppo.eval]);
  });

  it("gives a stage run alone the same rows, and leaves the other stages' rows alone", async () => {
    const [all, alone] = [await load(rows, data), await load(rows, data, ["reward"])];
    expect(alone.reward).toEqual(all.reward);
    expect(alone.report.skipped).toEqual({ "stage-not-run": 24 });
    expect(alone.sft.train).toEqual([]);
  });

  it("length limits move no row to another phase", async () => {
    const [wide, narrow] = [await load(rows, data), await load(rows, { maxPromptTokens: 20 })];
    const texts = (loaded: RlhfData): Set<string> => new Set(loaded.ppo.train.map((row) => row.promptText));
    for (const text of texts(narrow)) expect(texts(wide)).toContain(text);
  });
});

describe("a phase left without rows", () => {
  it("shows the arithmetic and the knob for prompts", async () => {
    const rows = Array.from({ length: 10 }, () => pair("ask more more"));
    await expect(load(rows, { maxPromptTokens: 2 }, ["sft"])).rejects.toThrow(
      "no training rows left for sft: 10 rows × share 2/10 = 2 rows; dropped: prompt-too-long 2. To mend it, raise data.maxPromptTokens from 2 (half of the dropped prompts have at most 3 tokens)",
    );
  });

  it("shows the knob for answers, with eos counted", async () => {
    await expect(
      load(
        Array.from({ length: 10 }, () => pair()),
        { maxResponseTokens: 1 },
        ["reward"],
      ),
    ).rejects.toThrow(
      "raise data.maxResponseTokens from 1 (half of the dropped answers have at most 2 tokens with eos)",
    );
  });

  it("names a share of zero and too few rows", async () => {
    await expect(load([pair(), pair()], { split: [0, 1, 1] }, ["sft"])).rejects.toThrow(
      "2 rows × share 0/2 = 0 rows; dropped: none. To mend it, raise its share in data.split or give more rows",
    );
  });

  it("says that a reward stage needs rejected answers", async () => {
    const rows = Array.from({ length: 10 }, () => ({ prompt: "ask", chosen: " good" }));
    await expect(load(rows, {}, ["reward"])).rejects.toThrow(/no-rejected 4.*data\.columns\.rejected/);
  });
});
