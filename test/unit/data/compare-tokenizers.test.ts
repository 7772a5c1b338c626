import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { tokenizerDifference } from "../../../src/data/compare-tokenizers.js";
import { tempFolder, writeTemp } from "./temp-folder.js";

const folder = tempFolder();
const PAD = 3;
const words = (vocab: Record<string, number>, added: Record<string, number> = { "<pad>": PAD }) => ({
  model: { type: "BPE", vocab },
  added_tokens: Object.entries(added).map(([content, id]) => ({ id, content })),
});
const ours = words({ "<eos>": 0, a: 1, b: 2 });
const differences = (theirs: unknown, mine: unknown = ours) =>
  tokenizerDifference(
    writeTemp(folder, JSON.stringify(theirs), "theirs.json"),
    writeTemp(folder, JSON.stringify(mine), "ours.json"),
    PAD,
  );

describe("two tokenizers", () => {
  it.each<[string, unknown]>([
    ["in another order", words({ b: 2, a: 1, "<eos>": 0 })],
    ["with the end token among the added ones", words({ a: 1, b: 2 }, { "<eos>": 0, "<pad>": PAD })],
    [
      "of another kind of model",
      { model: { type: "Unigram", vocab: ["<eos>", "a", "b"].map((t) => [t, -1]) } },
    ],
    ["that knows more", words({ "<eos>": 0, a: 1, b: 2, c: 4 })],
    ["without the pad token, which is never read", words({ "<eos>": 0, a: 1, b: 2 }, {})],
  ])("agree when theirs is the same, %s", async (_, theirs) => expect(await differences(theirs)).toBeNull());

  it.each<[string, unknown, string]>([
    ["other words", words({ "<eos>": 0, b: 1, a: 2 }), '1 is "b"'],
    ["fewer words", words({ "<eos>": 0, a: 1 }), "2 is no token"],
    ["another added token", words({ "<eos>": 0, a: 1, b: 2 }, { "<sep>": PAD }), '3 is "<sep>"'],
  ])("differ when theirs has %s", async (_, theirs, expected) => {
    const found = await differences(theirs);
    expect(found).toContain(`token ${expected} in ${join(folder, "theirs.json")} and "`);
    expect(found).toContain(join(folder, "ours.json"));
  });

  it.each([{}, { model: { vocab: 3 } }, words({ a: "1" as unknown as number })])(
    "cannot be compared when one of them is none: %j",
    async (theirs) => {
      await expect(differences(theirs)).rejects.toMatchObject({
        code: "DATA",
        message: expect.stringContaining("theirs.json") as string,
      });
    },
  );
});
