import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { viewOf } from "../../../src/engine/layout.js";
import { loadModelDir, saveModelDir } from "../../../src/models/checkpoint-dir.js";
import { freshGpt2Spec, initParams, layoutOf, toHfConfig, withHead } from "../../../src/models/model-spec.js";
import { packageRoot } from "../../../src/shared/paths.js";
import { writeSafetensors, type NamedShape } from "../../../src/shared/safetensors.js";

const root = mkdtempSync(join(tmpdir(), "troupe-models-"));
afterAll(() => rmSync(root, { recursive: true }));

const spec = freshGpt2Spec({
  head: "lm",
  layers: 1,
  hidden: 8,
  heads: 2,
  contextTokens: 8,
  vocabularySize: 12,
  eosTokenId: 1,
  padTokenId: 0,
});
const values = initParams(spec, 1);
const { entries } = layoutOf(spec);

let dir: string;
let count = 0;
beforeEach(() => {
  dir = join(root, `m${count++}`);
  mkdirSync(dir);
});

/** Writes a model folder whose tensors were renamed, dropped (null) or added. */
async function writeEdited(
  rename: (name: string) => string | null,
  added: Record<string, NamedShape["shape"]> = {},
) {
  const tensors: { name: string; shape: readonly number[]; data: Float32Array }[] = [];
  for (const { name, shape } of entries) {
    const newName = rename(name);
    if (newName !== null) tensors.push({ name: newName, shape, data: viewOf(layoutOf(spec), values, name) });
  }
  for (const [name, shape] of Object.entries(added)) {
    tensors.push({ name, shape, data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5) });
  }
  tensors.sort((a, b) => (a.name < b.name ? -1 : 1));
  writeFileSync(join(dir, "config.json"), JSON.stringify(toHfConfig(spec)));
  await writeSafetensors(
    join(dir, "model.safetensors"),
    tensors,
    Float32Array.from(tensors.flatMap(({ data }) => [...data])),
  );
}

describe("model folder", () => {
  it("comes back bit for bit", async () => {
    await saveModelDir(dir, spec, values);
    expect(await loadModelDir(dir, "lm")).toEqual({ spec, values, warnings: [] });
  });

  it("is the arena's bytes: the data section equals the flat parameters", async () => {
    await saveModelDir(dir, spec, values);
    const file = readFileSync(join(dir, "model.safetensors"));
    const start = 8 + Number(file.readBigUInt64LE(0));
    expect(file.subarray(start).equals(Buffer.from(values.buffer))).toBe(true);
  });

  it("takes the tokenizer along", async () => {
    const tokenizerDir = join(root, "tokenizer");
    mkdirSync(tokenizerDir, { recursive: true });
    writeFileSync(join(tokenizerDir, "tokenizer.json"), "{}");
    writeFileSync(join(tokenizerDir, "secret.txt"), "x");
    await saveModelDir(dir, spec, values, { tokenizerDir });
    expect(readFileSync(join(dir, "tokenizer.json"), "utf8")).toBe("{}");
    expect(existsSync(join(dir, "secret.txt"))).toBe(false);
    await saveModelDir(dir, spec, values, { tokenizerDir: dir }); // saving over itself is no error
  });

  it("writes the end and pad tokens where generation looks for them", async () => {
    await saveModelDir(dir, spec, values);
    expect(JSON.parse(readFileSync(join(dir, "generation_config.json"), "utf8"))).toMatchObject({
      eos_token_id: 1,
      pad_token_id: 0,
    });
  });

  it("refuses to write a NaN, naming the tensor", async () => {
    const broken = values.slice();
    broken[layoutOf(spec).byName.get("transformer.ln_f.bias")!.offset + 3] = NaN;
    await expect(saveModelDir(dir, spec, broken)).rejects.toThrow(
      /tensor transformer.ln_f.bias element 3 is NaN/,
    );
  });

  it("loads names without the backbone's prefix, and old buffers and a tied head are left out", async () => {
    await writeEdited((name) => name.replace("transformer.", ""), {
      "h.0.attn.bias": [1, 1, 8, 8],
      "h.0.attn.masked_bias": [],
      "lm_head.weight": [12, 8],
    });
    expect(await loadModelDir(dir, "lm")).toEqual({ spec, values, warnings: [] });
  });

  it("starts a scalar head from a seed only when told to", async () => {
    await saveModelDir(dir, spec, values);
    await expect(loadModelDir(dir, "scalar")).rejects.toThrow(
      /tensor score.weight is missing; expected shape \[1, 8\]/,
    );
    const loaded = await loadModelDir(dir, "scalar", { initMissing: 5 });
    expect(loaded.warnings).toEqual(["score.weight is not in the checkpoint: initialised from seed 5"]);
    const layout = layoutOf(withHead(spec, "scalar"));
    const fresh = initParams(withHead(spec, "scalar"), 5);
    expect(viewOf(layout, loaded.values, "score.weight")).toEqual(viewOf(layout, fresh, "score.weight"));
    const name = "transformer.wte.weight";
    expect(viewOf(layout, loaded.values, name)).toEqual(viewOf(layoutOf(spec), values, name));
  });

  it("loads a scalar model's backbone as a language model and says what it left out", async () => {
    await writeEdited((name) => name, { "score.weight": [1, 8] });
    const { warnings } = await loadModelDir(dir, "lm");
    expect(warnings).toEqual(["score.weight left out: the model is loaded with a lm head"]);
  });

  it("names a missing tensor even when a seed is given", async () => {
    await writeEdited((name) => (name === "transformer.wpe.weight" ? null : name));
    await expect(loadModelDir(dir, "lm", { initMissing: 1 })).rejects.toThrow(
      /model.safetensors: tensor transformer.wpe.weight is missing; expected shape \[8, 8\]/,
    );
  });

  it("asks for no memory that the file does not account for", async () => {
    await saveModelDir(dir, spec, values);
    const config = { ...toHfConfig(spec), vocab_size: 2 ** 24, n_embd: 2 ** 20 };
    writeFileSync(join(dir, "config.json"), JSON.stringify(config)); // 64 TB of embeddings
    await expect(loadModelDir(dir, "lm")).rejects.toThrow(/has shape \[\d+\], expected \[\d+\]/);
  });

  it("names an extra tensor", async () => {
    await writeEdited((name) => name, { "transformer.h.1.ln_1.bias": [8] });
    await expect(loadModelDir(dir, "lm")).rejects.toThrow(
      /tensor transformer.h.1.ln_1.bias does not belong to a gpt2 model with a lm head/,
    );
  });

  it("names a tensor of the wrong shape, what was expected and what came", async () => {
    await writeEdited((name) => (name === "transformer.ln_f.bias" ? null : name), {
      "transformer.ln_f.bias": [9],
    });
    await expect(loadModelDir(dir, "lm")).rejects.toThrow(
      /tensor transformer.ln_f.bias has shape \[9\], expected \[8\]/,
    );
  });

  it("refuses the same tensor under two names", async () => {
    await writeEdited((name) => name, { "ln_f.bias": [8] });
    await expect(loadModelDir(dir, "lm")).rejects.toThrow(/was already read/);
  });

  it("never opens a pickle, and says how to convert it", async () => {
    writeFileSync(join(dir, "config.json"), JSON.stringify(toHfConfig(spec)));
    writeFileSync(join(dir, "pytorch_model.bin"), "");
    await expect(loadModelDir(dir, "lm")).rejects.toThrow(
      /pytorch_model.bin is a pickle.*safe_serialization=True/,
    );
  });

  it.each([
    ["no config", () => undefined, /has no config.json/],
    [
      "a field that is none",
      () => writeFileSync(join(dir, "config.json"), JSON.stringify({ ...toHfConfig(spec), n_head: 3 })),
      /^\S+m\d+: config\.json: n_embd \/ n_head: 8 is not divisible by 3/,
    ],
    [
      "no weights",
      () => writeFileSync(join(dir, "config.json"), JSON.stringify(toHfConfig(spec))),
      /has no model.safetensors/,
    ],
    [
      "a config with a repeated key",
      () => writeFileSync(join(dir, "config.json"), '{"a":1,"a":2}'),
      /config.json: invalid JSON.*duplicate key "a"/,
    ],
  ])("refuses a folder with %s", async (_name, prepare, message) => {
    prepare();
    await expect(loadModelDir(dir, "lm")).rejects.toThrow(message);
  });
});

describe("sharded model folder", () => {
  const source = join(packageRoot, "test/fixtures/models/llama-sharded");
  const edit = (change: (map: Record<string, unknown>) => void) => {
    cpSync(source, dir, { recursive: true });
    const path = join(dir, "model.safetensors.index.json");
    const index = JSON.parse(readFileSync(path, "utf8")) as { weight_map: Record<string, unknown> };
    change(index.weight_map);
    writeFileSync(path, JSON.stringify(index));
  };

  it.each(["../m0/model.safetensors", "/etc/passwd.safetensors", "..\\x.safetensors", "sub/x.safetensors"])(
    "refuses a shard outside the folder: %s",
    async (name) => {
      edit((map) => (map["lm_head.weight"] = name));
      await expect(loadModelDir(dir, "lm")).rejects.toThrow(/must name a file in this folder/);
    },
  );

  it("refuses shards that do not exist or are not safetensors", async () => {
    edit((map) => (map["lm_head.weight"] = "model-00009.safetensors"));
    await expect(loadModelDir(dir, "lm")).rejects.toThrow(/shard model-00009.safetensors does not exist/);
    edit((map) => (map["lm_head.weight"] = "model.bin"));
    await expect(loadModelDir(dir, "lm")).rejects.toThrow(/must name .safetensors files, got "model.bin"/);
  });

  it("refuses a link that leads out of the folder, but follows the Hugging Face cache's own", async () => {
    const outside = join(root, "outside.safetensors");
    cpSync(join(packageRoot, "test/fixtures/models/gpt2/model.safetensors"), outside);
    cpSync(join(packageRoot, "test/fixtures/models/gpt2/config.json"), join(dir, "config.json"));
    symlinkSync(outside, join(dir, "model.safetensors"));
    await expect(loadModelDir(dir, "lm")).rejects.toThrow(/model.safetensors: leads out of its folder/);

    const snapshot = join(dir, "models--x--y", "snapshots", "abc");
    const blobs = join(dir, "models--x--y", "blobs");
    mkdirSync(snapshot, { recursive: true });
    mkdirSync(blobs);
    for (const name of ["config.json", "model.safetensors"]) {
      cpSync(join(packageRoot, "test/fixtures/models/gpt2", name), join(blobs, `sha-${name}`));
      symlinkSync(join("..", "..", "blobs", `sha-${name}`), join(snapshot, name));
    }
    expect((await loadModelDir(snapshot, "lm")).spec.layers).toBe(2);
  });
});
