import { beforeAll, describe, expect, it } from "vitest";
import { readFileSync } from "node:fs";
import { trainBpe, WordCounts } from "../../../src/data/bpe-trainer.js";
import { tokenBytesOf } from "../../../src/data/token-bytes.js";
import { writeBpeTokenizer } from "../../../src/data/tokenizer-files.js";
import { inlineTokenizer } from "./inline-tokenizer.js";
import { tempFolder } from "./temp-folder.js";

const folder = tempFolder();
const text = (bytes: Uint8Array | undefined) => new TextDecoder().decode(bytes);

describe("token bytes", () => {
  beforeAll(async () => {
    const words = new WordCounts();
    words.add("the cat and the dog and the cat");
    await writeBpeTokenizer(folder, trainBpe(words.counts, { vocabularySize: 270 }));
  });

  it("of a byte-level vocabulary join to what the tokenizer decodes, special tokens included", async () => {
    const tokenizer = await inlineTokenizer(folder);
    const bytes = tokenBytesOf(JSON.parse(readFileSync(`${folder}/tokenizer.json`, "utf8")));
    expect(bytes.size).toBe(tokenizer.info.vocabSize);
    const written = "Human: naïve 好。\n\nthe cat\u00a0and 🦜 the dog";
    const [ids] = await tokenizer.encode([written]);
    const withEos = Int32Array.from([...ids, tokenizer.info.eosId]);
    const joined = Buffer.concat([...withEos].map((id) => bytes.get(id)!)).toString("utf8");
    expect(joined).toBe(written + tokenizer.info.eosToken);
    expect(joined).toBe((await tokenizer.decode([withEos], { skipSpecialTokens: false }))[0]);
  });

  it("of a SentencePiece vocabulary have spaces and single bytes", () => {
    const decoder = {
      type: "Sequence",
      decoders: [{ type: "Replace" }, { type: "ByteFallback" }, { type: "Fuse" }],
    };
    const vocab = { "▁the": 0, "<0x0A>": 1, "▁▁": 2, é: 3, "<end>": 4 };
    const added = [{ id: 5, content: "<|im▁end|>" }];
    const bytes = tokenBytesOf({ model: { vocab }, decoder, added_tokens: added });
    expect([0, 1, 2, 3, 4, 5].map((id) => text(bytes.get(id)))).toEqual([
      " the",
      "\n",
      "  ",
      "é",
      "<end>",
      "<|im▁end|>",
    ]);
    const unigram = tokenBytesOf({
      model: {
        vocab: [
          ["<unk>", 0],
          ["▁a", -2],
        ],
      },
      decoder: { type: "Metaspace" },
    });
    expect(text(unigram.get(1))).toBe(" a");
  });

  it("of another kind of vocabulary are refused", () => {
    expect(() => tokenBytesOf({ model: { vocab: {} }, decoder: { type: "WordPiece" } })).toThrow(/WordPiece/);
    expect(() => tokenBytesOf({ model: { vocab: {} }, decoder: null })).toThrow(/none/);
  });
});
