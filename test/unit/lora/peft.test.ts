import { mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { makeLogprobsProgram } from "../../../src/learner/programs.js";
import { loadModelDir } from "../../../src/models/checkpoint-dir.js";
import { mergeAdapterDir, saveAdapterDir } from "../../../src/models/lora-files.js";
import { mergedWeights } from "../../../src/models/lora.js";
import type { Head } from "../../../src/models/model-spec.js";
import { packageRoot } from "../../../src/shared/paths.js";
import { SafetensorsFile } from "../../../src/shared/safetensors.js";
import { adapted, runOn, listed, valuesProgram } from "./models.js";

const fixtures = join(packageRoot, "test/unit/lora/peft");
let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "troupe-peft-"))));
afterAll(() => rm(folder, { recursive: true, force: true }));

const json = async (path: string) => JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
const namesIn = async (path: string) => {
  const file = await SafetensorsFile.open(path);
  await file.close();
  return file.header.tensors.map(({ name, shape }) => `${name} [${shape.join()}]`);
};

describe("a PEFT adapter", () => {
  it.each(["gpt2", "llama"])("merged into %s gives the log-probabilities PEFT computes", async (name) => {
    const { spec, values } = await loadModelDir(join(fixtures, name, "base"), "lm");
    await mergeAdapterDir(join(fixtures, name, "adapter"), spec, values);
    const { ids, logits } = (await json(join(fixtures, name, "logits.json"))) as {
      ids: number[][];
      logits: number[];
    };
    const [row] = ids;
    const { shape, inputs } = listed([row]);
    const { mask: _all, ...tokens } = inputs;
    const program = makeLogprobsProgram(spec, shape, 1);
    const weights = { trained: values, frozen: null };
    const { logprobs } = (await runOn(spec, weights, program, tokens)).outputs;
    for (let t = 0; t + 1 < row.length; t++) {
      const at = logits.slice(t * 23, (t + 1) * 23);
      const expected = at[row[t + 1]] - Math.log(at.reduce((sum, value) => sum + Math.exp(value), 0));
      expect(Math.abs(logprobs[t] - expected), `token ${t + 1}`).toBeLessThan(1e-5);
    }
  });

  it("of a reward model brings its score head with it", async () => {
    const name = "gpt2-score";
    const { spec, values } = await loadModelDir(join(fixtures, name, "base"), "scalar");
    await mergeAdapterDir(join(fixtures, name, "adapter"), spec, values);
    const { ids, logits } = (await json(join(fixtures, name, "logits.json"))) as {
      ids: number[][];
      logits: number[];
    };
    const weights = { trained: values, frozen: null };
    const { outputs } = await runOn(spec, weights, valuesProgram(spec, ids[0].length), {
      ids: Int32Array.from(ids[0]),
    });
    expect(outputs.values[ids[0].length - 1]).toBeCloseTo(logits[0], 5);
  });

  const cases: [string, Head, string[]][] = [
    ["gpt2", "lm", ["c_attn", "c_fc"]],
    ["llama", "lm", ["q_proj", "v_proj", "down_proj"]],
  ];
  it.each(cases)(
    "saved from %s has the tensors and fields that PEFT writes",
    async (family, head, targetModules) => {
      const { spec, weights } = adapted(family, { head, settings: { targetModules } });
      const dir = join(folder, `names-${family}`);
      await saveAdapterDir(dir, spec, weights.trained, "some/base");
      const theirs = join(fixtures, family, "adapter");
      const file = "adapter_model.safetensors";
      expect((await namesIn(join(dir, file))).sort()).toEqual((await namesIn(join(theirs, file))).sort());
      const [ours, reference] = [
        await json(join(dir, "adapter_config.json")),
        await json(join(theirs, "adapter_config.json")),
      ];
      for (const field of [
        "peft_type",
        "task_type",
        "r",
        "lora_alpha",
        "fan_in_fan_out",
        "bias",
        "lora_dropout",
      ]) {
        expect(ours[field], field).toEqual(reference[field]);
      }
      expect(ours.base_model_name_or_path).toBe("some/base");
    },
  );

  it.each([
    ["gpt2", "lm"],
    ["opt", "lm"],
    ["qwen3", "scalar"],
  ] as const)(
    "saved from %s (%s head) and merged into its base is the merged model, bit by bit",
    async (family, head) => {
      const { plain, spec, base, weights } = adapted(family, { head });
      const dir = join(folder, `round-${family}`);
      await saveAdapterDir(dir, spec, weights.trained, null);
      const values = base.slice();
      await mergeAdapterDir(dir, plain, values);
      expect(values).toEqual(mergedWeights(spec, weights));
      expect(values).not.toEqual(base);
    },
  );

  it("that does not fit is refused by name, and changes nothing", async () => {
    const { plain, spec, base, weights } = adapted("gpt2");
    const dir = join(folder, "bad");
    const values = base.slice();
    const withField = async (change: Record<string, unknown>) => {
      await saveAdapterDir(dir, spec, weights.trained, null);
      const path = join(dir, "adapter_config.json");
      await writeFile(path, JSON.stringify({ ...(await json(path)), ...change }));
      return mergeAdapterDir(dir, plain, values);
    };
    for (const [field, value] of [
      ["use_dora", true],
      ["use_rslora", true],
      ["lora_bias", true],
      ["alpha_pattern", { c_attn: 4 }],
      ["layers_to_transform", [0]],
      ["alora_invocation_tokens", [5]],
      ["a_variant_of_next_year", 1],
    ] as const) {
      await expect(withField({ [field]: value })).rejects.toThrow(
        `bad/adapter_config.json: ${field} must be left out, false or empty`,
      );
    }
    await expect(withField({ bias: "all" })).rejects.toThrow(/bias must be none, got "all"/);
    for (const start of ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga"]) {
      await expect(withField({ init_lora_weights: start })).rejects.toThrow(
        `init_lora_weights must be one of true, false, gaussian, eva, orthogonal, which leave the base as it is, got "${start}"`,
      );
    }
    await expect(withField({ fan_in_fan_out: false })).rejects.toThrow(/fan_in_fan_out must be true/);
    await expect(withField({ r: 3 })).rejects.toThrow(/lora_A.weight has shape \[2, 8\], expected \[3, 8\]/);
    await expect(withField({ target_modules: ["c_attn"] })).rejects.toThrow(/fits no adapted module/);
    const fields = [
      [{ r: 20 }, /bad.adapter_config\.json: the adapter does not fit this model: rank 20 exceeds/],
      [
        { target_modules: ["q_proj"] },
        /bad.adapter_config\.json: .*: targetModules: no linear module .* q_proj/,
      ],
    ] as const;
    for (const [change, message] of fields) {
      const error = expect.objectContaining({
        code: "DATA",
        message: expect.stringMatching(message) as string,
      }) as Error;
      await expect(withField(change)).rejects.toThrow(error);
    }
    await saveAdapterDir(dir, spec, weights.trained, null);
    await rename(join(dir, "adapter_model.safetensors"), join(dir, "adapter_model.bin"));
    await expect(mergeAdapterDir(dir, plain, values)).rejects.toThrow(
      /adapter_model\.bin is a pickle, .*peft: AutoPeftModel\.from_pretrained\(".*bad"\)\.save_pretrained/,
    );
    expect(values).toEqual(base);
    await withField({
      init_lora_weights: "gaussian",
      layer_replication: null,
      megatron_core: "megatron.core",
    });
    expect(values).not.toEqual(base);
    const open = adapted("gpt2", { settings: { onlyOptimizeLora: false } });
    await expect(saveAdapterDir(dir, open.spec, open.weights.trained, null)).rejects.toThrow(
      /onlyOptimizeLora/,
    );
  });
});
