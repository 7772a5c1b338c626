import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { generationConfig, readGenerationDefaults } from "../../../src/models/generation-defaults.js";

const folder = mkdtempSync(join(tmpdir(), "troupe-generation-"));
afterAll(() => rmSync(folder, { recursive: true }));
const write = (name: string, json: unknown) => writeFileSync(join(folder, name), JSON.stringify(json));
beforeEach(() => {
  for (const name of ["config.json", "generation_config.json"]) rmSync(join(folder, name), { force: true });
});

describe("the tokens that end an answer", () => {
  it.each<[string, unknown, unknown, number[]]>([
    ["of all three files", { eos_token_id: 7 }, { eos_token_id: [8, 9] }, [9, 7, 8]],
    ["of an instruct model's config alone", { eos_token_id: [7, 9] }, {}, [9, 7]],
    ["of the tokenizer where the others name none", { eos_token_id: null }, { eos_token_id: -1 }, [9]],
  ])("are those %s, each once", async (_, config, generation, expected) => {
    write("config.json", config);
    write("generation_config.json", generation);
    expect((await readGenerationDefaults(folder, [9])).eosIds).toEqual(expected);
  });

  it("are the tokenizer's in a folder without the files", async () => {
    expect(await readGenerationDefaults(folder, [9])).toEqual({ eosIds: [9], fields: {} });
  });

  it.each<[string, unknown]>([
    ["must be a token id or a list of them", "</s>"],
    ["must be a token id or a list of them", [1, -2]],
    ["must be below vocab_size 10, got 10", [1, 10]],
  ])("are refused, with the file, when a file's %s", async (message, eos) => {
    write("config.json", { vocab_size: 10 });
    write("generation_config.json", { eos_token_id: eos });
    await expect(readGenerationDefaults(folder, [])).rejects.toMatchObject({
      code: "DATA",
      message: expect.stringContaining(
        `${join(folder, "generation_config.json")}: field eos_token_id ${message}`,
      ) as string,
    });
  });

  it("go into a new generation_config.json with what the old one says besides", async () => {
    write("generation_config.json", { eos_token_id: 3, pad_token_id: 4, top_p: 0.8 });
    const defaults = await readGenerationDefaults(folder, [9]);
    expect(generationConfig(defaults, { bosId: null, padId: 2 })).toEqual({
      bos_token_id: null,
      eos_token_id: [9, 3],
      pad_token_id: 2,
      top_p: 0.8,
    });
    expect(generationConfig({ eosIds: [9], fields: {} }, { bosId: 1, padId: 2 }).eos_token_id).toBe(9);
  });
});
