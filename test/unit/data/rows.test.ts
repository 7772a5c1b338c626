import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { extractPrompt } from "../../../src/data/implicit-prompt.js";
import { readRows, type DataConfig } from "../../../src/data/rows.js";
import { dataConfig, jsonLines, tempFolder, writeTemp } from "./temp-folder.js";

const folder = tempFolder();
const configFor = (content: string, overrides: Partial<DataConfig> = {}): DataConfig =>
  dataConfig(writeTemp(folder, content), overrides);
const readAll = (rows: readonly unknown[], overrides: Partial<DataConfig> = {}) =>
  readRows(configFor(jsonLines(rows), overrides));
const columns = (names: Partial<DataConfig["columns"]>): Partial<DataConfig> => ({
  columns: { prompt: "prompt", chosen: "chosen", rejected: "rejected", messages: "messages", ...names },
});
const user = (content: string) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });

describe("formats", () => {
  it("prompt, chosen and rejected come as given, other columns are ignored", async () => {
    const read = await readAll([{ prompt: "p", chosen: " c", rejected: " r", score: 3 }]);
    expect(read).toMatchObject({ format: "prompt+chosen+rejected", rowCount: 1, skipped: {} });
    expect(read.textRows).toEqual([{ index: 0, prompt: "p", chosen: " c", rejected: " r" }]);
  });

  it("chosen and rejected alone share their prompt up to the last assistant turn", async () => {
    const start = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: more\n\nAssistant:";
    const read = await readAll([{ chosen: `${start} yes, sure`, rejected: `${start} yes, no` }]);
    expect(read.format).toBe("chosen+rejected");
    expect(read.textRows).toEqual([{ index: 0, prompt: start, chosen: " yes, sure", rejected: " yes, no" }]);
  });

  it("demonstrations and prompts may be named by data.columns", async () => {
    const read = await readAll(
      [{ question: "1+1?", answer: "2" }],
      columns({ prompt: "question", chosen: "answer" }),
    );
    expect(read).toMatchObject({
      format: "prompt+chosen",
      textRows: [{ index: 0, prompt: "1+1?", chosen: "2" }],
    });
    expect(await readAll([{ prompt: "p", n: 1 }])).toMatchObject({
      format: "prompt",
      textRows: [{ prompt: "p" }],
    });
  });

  it("messages split before the last assistant turn", async () => {
    const turns = [user("a"), assistant("b"), user("c"), assistant("d")];
    const read = await readAll([{ messages: turns }, { messages: turns.slice(0, 3) }]);
    expect(read.format).toBe("messages");
    expect(read.chatRows).toEqual([
      { index: 0, prompt: turns.slice(0, 3), chosen: turns.slice(3) },
      { index: 1, prompt: turns.slice(0, 3) },
    ]);
  });

  it("conversational pairs share their first messages", async () => {
    const read = await readAll([
      { chosen: [user("q"), assistant("good")], rejected: [user("q"), assistant("bad")] },
    ]);
    expect(read.chatRows).toEqual([
      { index: 0, prompt: [user("q")], chosen: [assistant("good")], rejected: [assistant("bad")] },
    ]);
  });

  it("a conversational prompt takes a plain-text answer as one assistant turn", async () => {
    const read = await readAll([{ prompt: [user("q")], chosen: "good", rejected: [assistant("bad")] }]);
    expect(read.chatRows).toMatchObject([{ chosen: [assistant("good")], rejected: [assistant("bad")] }]);
  });

  it("maxRows reads the first rows only", async () => {
    const rows = Array.from({ length: 10 }, (_, i) => ({ prompt: `p${i}` }));
    const read = await readAll(rows, { maxRows: 4 });
    expect(read.rowCount).toBe(4);
    expect(read.textRows.map((row) => row.prompt)).toEqual(["p0", "p1", "p2", "p3"]);
  });
});

describe("errors", () => {
  it("missing columns list what the file has", async () => {
    await expect(readAll([{ instruction: "a", output: "b" }])).rejects.toThrow(
      /no usable columns; it has: instruction, output\. Expected "chosen" and "rejected".*data\.columns/,
    );
  });

  it("a renamed column that is not there is an error, never another format", async () => {
    await expect(
      readAll([{ chosen: "a b", rejected: "a c" }], columns({ prompt: "question" })),
    ).rejects.toThrow(
      'data.columns.prompt names column "question", which the file does not have; it has: chosen, rejected',
    );
  });

  it.each([
    ["not valid JSON", '{"prompt":"a"}\n{"prompt":\n', /line 2: not valid JSON .* set data\.onBadRow: skip/],
    ["not an object", '{"prompt":"a"}\n[1]\n', /line 2: the row is an array; expected an object/],
    [
      "a number for text",
      '{"prompt":"a"}\n\n{"prompt":7}\n',
      /line 3: column "prompt" is a number; expected text/,
    ],
    ["a column gone", '{"prompt":"a"}\n{"prmopt":"b"}\n', /line 2: column "prompt" is missing or null/],
    [
      "half a surrogate pair",
      '{"prompt":"a"}\n{"prompt":"\\ud83d"}\n',
      /line 2: column "prompt" holds half of a UTF-16 pair/,
    ],
    [
      "a message without a role",
      '{"prompt":[{"content":"x"}]}\n',
      /line 1: column "prompt", message 0: expected \{role/,
    ],
    [
      "text where messages belong",
      '{"messages":"x"}\n',
      /line 1: column "messages" is text; expected messages/,
    ],
    [
      "text and messages mixed",
      '{"prompt":"p","chosen":[{"role":"user","content":"x"}]}\n',
      /line 1: the prompt is text/,
    ],
  ])("%s stops the run with path and line", async (_, content, message) => {
    const data = configFor(content);
    const error = (await readRows(data).catch((thrown: unknown) => thrown)) as Error;
    expect(error).toMatchObject({ code: "DATA" });
    expect(error.message).toMatch(message);
    expect(error.message).toContain(data.path);
  });

  it("onBadRow skip counts each kind, and rows read = rows kept + skipped", async () => {
    const content = [
      '{"prompt":"a"}',
      "oops",
      "[1]",
      '{"prompt":7}',
      "{}",
      '{"prompt":"\\ud83d"}',
      "",
      '{"prompt":"b"}',
    ];
    const read = await readRows(configFor(content.join("\n"), { onBadRow: "skip" }));
    expect(read.textRows).toEqual([
      { index: 0, prompt: "a" },
      { index: 6, prompt: "b" },
    ]);
    expect(read.skipped).toEqual({
      "invalid-json": 1,
      "not-an-object": 1,
      "wrong-type": 1,
      "missing-column": 1,
      "lone-surrogate": 1,
    });
    expect(read.rowCount).toBe(7);
  });

  it("unusable rows are counted under either policy", async () => {
    const read = await readAll([
      { chosen: "same thing", rejected: "same thing" },
      { chosen: "one", rejected: "two" },
      { chosen: "we share this", rejected: "we share that" },
    ]);
    expect(read.skipped).toEqual({ "identical-pair": 1, "no-common-prompt": 1 });
    expect(read.textRows).toEqual([{ index: 2, prompt: "we share", chosen: " this", rejected: " that" }]);
  });

  it("only blank lines, and only unreadable rows, are errors of their own", async () => {
    await expect(readRows(configFor("\n \n"))).rejects.toThrow(/holds no rows, only blank lines/);
    await expect(readRows(configFor("x\ny\n", { onBadRow: "skip" }))).rejects.toThrow(
      /none of its 2 rows can be read \(invalid-json 2\)/,
    );
  });

  it("treats __proto__ as a plain column", async () => {
    const read = await readRows(configFor('{"__proto__":{"chosen":"x"},"prompt":"p"}\n'));
    expect(read).toMatchObject({ format: "prompt", textRows: [{ prompt: "p" }] });
  });
});

describe("extractPrompt", () => {
  it("cuts at the last shared assistant turn, not at the first difference", () => {
    const parts = extractPrompt("\n\nHuman: a\n\nAssistant: I can", "\n\nHuman: a\n\nAssistant: I cannot");
    expect(parts).toEqual({ prompt: "\n\nHuman: a\n\nAssistant:", chosen: " I can", rejected: " I cannot" });
  });

  it("does not cut at a turn marker that only one side reaches", () => {
    const parts = extractPrompt(
      "\n\nHuman: a\n\nAssistant: x\n\nHuman: b\n\nAssistant: y",
      "\n\nHuman: a\n\nAssistant: x",
    );
    expect(parts?.prompt).toBe("\n\nHuman: a\n\nAssistant:");
  });

  it("without turns it cuts at a whole word and leaves both answers something", () => {
    expect(extractPrompt("count to ten", "count to tea")).toEqual({
      prompt: "count to",
      chosen: " ten",
      rejected: " tea",
    });
    expect(extractPrompt("the cat", "the cat sat")).toEqual({
      prompt: "the",
      chosen: " cat",
      rejected: " cat sat",
    });
    expect(extractPrompt("abc", "abd")).toBeNull();
  });

  it("always gives back both texts exactly", () => {
    const text = fc
      .array(fc.constantFrom("a", "b", " ", "\n", "\n\nAssistant:", "\n\nHuman:", "é"), { maxLength: 12 })
      .map((parts) => parts.join(""));
    fc.assert(
      fc.property(text, text, text, (shared, a, b) => {
        const parts = extractPrompt(shared + a, shared + b);
        if (parts === null) return;
        expect(parts.prompt.length).toBeGreaterThan(0);
        expect(parts.prompt + parts.chosen).toBe(shared + a);
        expect(parts.prompt + parts.rejected).toBe(shared + b);
      }),
    );
  });
});
