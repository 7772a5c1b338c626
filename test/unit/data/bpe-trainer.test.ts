import { readFileSync } from "node:fs";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { SPECIAL_TOKENS, trainBpe, WordCounts } from "../../../src/data/bpe-trainer.js";
import { BYTE_CHARACTERS, toByteCharacters } from "../../../src/data/byte-level.js";
import { writeBpeTokenizer, writeWordTokenizer } from "../../../src/data/tokenizer-files.js";
import type { TextTokenizer } from "../../../src/data/types.js";
import { inlineTokenizer } from "./inline-tokenizer.js";
import { tempFolder } from "./temp-folder.js";

interface Golden {
  readonly texts: readonly string[];
  readonly vocabularySize: number;
  readonly merges: readonly [string, string][];
  readonly vocabulary: readonly string[];
  readonly encoded: readonly { text: string; ids: number[] }[];
}
/** Made by Hugging Face tokenizers 0.23.3 with make-bpe-golden.py beside it. */
const golden = JSON.parse(
  readFileSync(new URL("../../fixtures/data/bpe-golden.json", import.meta.url), "utf8"),
) as Golden;
const folder = tempFolder();

const countsOf = (texts: readonly string[]): Map<string, number> => {
  const words = new WordCounts();
  for (const text of texts) words.add(text);
  return words.counts;
};

describe("trainBpe", () => {
  it("learns the merges and ids that Hugging Face's trainer learns", () => {
    const { tokens, merges } = trainBpe(countsOf(golden.texts), { vocabularySize: golden.vocabularySize });
    expect(merges).toEqual(golden.merges);
    expect(tokens).toEqual(golden.vocabulary);
  });

  it("joins the most frequent pair first, by hand", () => {
    // " aab" ×3 and " aa" ×2: pairs Ġa 5, aa 5, ab 3. Tie between "aa" and "Ġa": "a" has the smaller id.
    const { merges } = trainBpe(
      new Map([
        [" aab", 3],
        [" aa", 2],
      ]),
      { vocabularySize: 261 },
    );
    expect(merges).toEqual([
      ["a", "a"],
      ["Ġ", "aa"],
      ["Ġaa", "b"],
    ]);
  });

  it("counts overlapping repeats once per merge", () => {
    // "aaaa": pairs (a,a)×3 -> "aa" "aa": one pair (aa,aa).
    const { merges } = trainBpe(new Map([["aaaa", 2]]), { vocabularySize: 300 });
    expect(merges).toEqual([
      ["a", "a"],
      ["aa", "aa"],
    ]);
  });

  it("does not depend on the order of texts", () => {
    const forward = trainBpe(countsOf(golden.texts), { vocabularySize: 320 });
    const backward = trainBpe(countsOf([...golden.texts].reverse()), { vocabularySize: 320 });
    expect(backward).toEqual(forward);
  });

  it("stops early when no pair is seen often enough, and keeps every byte", () => {
    const { tokens, merges } = trainBpe(countsOf(["abc xyz"]), { vocabularySize: 1000 });
    expect(merges).toEqual([]);
    expect(tokens).toHaveLength(258);
    expect(new Set(tokens)).toEqual(new Set([...SPECIAL_TOKENS, ...BYTE_CHARACTERS]));
  });
});

describe("byte characters", () => {
  it("are GPT-2's: printable bytes as they are, the others from U+0100 on", () => {
    expect(toByteCharacters(" é\n")).toBe("ĠÃ©Ċ");
    expect(new Set(BYTE_CHARACTERS).size).toBe(256);
  });
});

describe("a trained tokenizer, loaded by transformers.js", () => {
  let tokenizer: TextTokenizer;
  beforeAll(async () => {
    await writeBpeTokenizer(
      `${folder}/bpe`,
      trainBpe(countsOf(golden.texts), { vocabularySize: golden.vocabularySize }),
    );
    tokenizer = await inlineTokenizer(`${folder}/bpe`);
  });

  it("encodes as Hugging Face's own tokenizer does", async () => {
    const ids = await tokenizer.encode(golden.encoded.map(({ text }) => text));
    expect(ids.map((row) => [...row])).toEqual(golden.encoded.map((entry) => entry.ids));
  });

  it("has eos and a pad token of its own", () => {
    expect(tokenizer.info).toMatchObject({
      vocabSize: 330,
      eosId: 0,
      eosToken: "<|endoftext|>",
      padId: 1,
      padIsEos: false,
      addsBos: false,
    });
  });

  it("gives back any well-formed text exactly, special tokens in it included", async () => {
    const texts = fc.array(
      fc.oneof(
        fc.string({ unit: "binary" }),
        fc.string(),
        fc.constantFrom("<|endoftext|>", "a<|pad|>b", " \n\t ", "<|endo"),
      ),
      { maxLength: 8 },
    );
    await fc.assert(
      fc.asyncProperty(texts, async (batch) => {
        const ids = await tokenizer.encode(batch);
        expect(await tokenizer.decode(ids, { skipSpecialTokens: false })).toEqual(batch);
        for (const row of ids) expect(row.every((id) => id > 1)).toBe(true); // user text never makes eos or pad
      }),
      { numRuns: 150 },
    );
  });

  it("reads special tokens as control tokens only when asked to", async () => {
    const [asText] = await tokenizer.encode(["<|endoftext|>"]);
    const [asControl] = await tokenizer.encode(["<|endoftext|>"], { parseSpecial: true });
    expect(asText.length).toBeGreaterThan(1);
    expect([...asControl]).toEqual([0]);
  });

  it("leaves special tokens out of decoded text by default", async () => {
    const [ids] = await tokenizer.encode(["banana"]);
    expect(await tokenizer.decode([[...ids, 0], [1, 1], []])).toEqual(["banana", "", ""]);
  });
});

describe("a word tokenizer", () => {
  it("has one id per word, keeps punctuation and spacing, and knows its unknowns", async () => {
    const tokens = await writeWordTokenizer(`${folder}/words`, ["Hi Anna, it is.", " Anna"]);
    expect(tokens.slice(0, 3)).toEqual(["<eos>", "<pad>", "<unk>"]);
    const tokenizer = await inlineTokenizer(`${folder}/words`);
    const [ids, strange] = await tokenizer.encode(["Hi Anna, it is.", "Hi Bob."]);
    expect(ids).toHaveLength(6);
    expect(await tokenizer.decode([ids])).toEqual(["Hi Anna, it is."]);
    expect([...strange]).toEqual([tokens.indexOf("Hi"), 2, tokens.indexOf(".")]);
    expect(tokenizer.info).toMatchObject({ vocabSize: tokens.length, eosId: 0, padId: 1, padIsEos: false });
  });
});
