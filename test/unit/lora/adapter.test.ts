import { describe, expect, it } from "vitest";
import { viewOf } from "../../../src/engine/layout.js";
import {
  makeCriticGradProgram,
  makeLmGradProgram,
  makeLogprobsProgram,
} from "../../../src/learner/programs.js";
import { specKey } from "../../../src/models/forward.js";
import {
  frozenLayout,
  linearModules,
  mergedWeights,
  trainedLayout,
  withLora,
} from "../../../src/models/lora.js";
import { layoutOf } from "../../../src/models/model-spec.js";
import { adapted, CONFIGS, listed, plainSpec, runOn, SETTINGS, valuesProgram } from "./models.js";

const { shape, inputs } = listed([
  [3, 14, 1, 5, 9, 2, 6, 5],
  [8, 9, 7, 22, 3, 8, 4, 6],
]);
const { mask, ...tokens } = inputs;
const denominator = Float32Array.of(1);
const families = Object.keys(CONFIGS);

const maxDifference = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Math.max(...Array.from(a, (value, i) => Math.abs(value - b[i])));

describe("an adapter", () => {
  it.each(families)("that is fresh changes no bit of a %s model's log-probabilities", async (family) => {
    const { plain, spec, base, weights } = adapted(family, { isFresh: true });
    const before = await runOn(
      plain,
      { trained: base, frozen: null },
      makeLogprobsProgram(plain, shape, 1),
      tokens,
    );
    const after = await runOn(spec, weights, makeLogprobsProgram(spec, shape, 1), tokens);
    expect(after.outputs.logprobs).toEqual(before.outputs.logprobs);
  });

  it.each(families)("computes what the merged %s model computes, within 1e-5", async (family) => {
    const { plain, spec, base, weights } = adapted(family);
    const merged = { trained: mergedWeights(spec, weights), frozen: null };
    const program = makeLogprobsProgram(plain, shape, 1);
    const unmerged = (await runOn(spec, weights, makeLogprobsProgram(spec, shape, 1), tokens)).outputs
      .logprobs;
    const plainly = (await runOn(plain, merged, program, tokens)).outputs.logprobs;
    const untouched = (await runOn(plain, { trained: base, frozen: null }, program, tokens)).outputs.logprobs;
    expect(maxDifference(unmerged, plainly)).toBeLessThan(1e-5);
    expect(maxDifference(untouched, plainly)).toBeGreaterThan(0.05);
  });

  it("is scaled by alpha / rank: half the alpha is half the change of a weight", () => {
    const change = (alpha: number) => {
      const { spec, base, weights } = adapted("llama", { settings: { alpha } });
      const name = "model.layers.1.mlp.down_proj.weight";
      const before = viewOf(layoutOf(spec), base, name);
      return viewOf(layoutOf(spec), mergedWeights(spec, weights), name).map((value, i) => value - before[i]);
    };
    const [half, whole] = [change(3), change(6)];
    expect(
      maxDifference(
        whole,
        half.map((value) => 2 * value),
      ),
    ).toBeLessThan(1e-6);
    // Element [0, 0] by hand: (6 / 2) · Σ_r B[0, r]·A[r, 0].
    const { spec, weights } = adapted("llama");
    const part = (which: string) =>
      viewOf(trainedLayout(spec), weights.trained, `model.layers.1.mlp.down_proj.lora_${which}.weight`);
    const [a, b] = [part("A"), part("B")];
    expect(whole[0]).toBeCloseTo(3 * (b[0] * a[0] + b[1] * a[12]), 5);
  });

  it.each(families)(
    "has the gradient of finite differences in a %s model, tensor by tensor",
    async (family) => {
      const { spec, weights } = adapted(family);
      const layout = trainedLayout(spec);
      const inputs = { ...tokens, mask, denominator };
      const program = makeLmGradProgram(spec, shape, 1);
      const { grads } = await runOn(spec, weights, program, inputs);
      const lossAt = async (trained: Float32Array) =>
        (await runOn(spec, { ...weights, trained }, program, inputs)).outputs.loss[0];
      const step = 1e-3;
      for (const { name } of layout.entries.filter((_, i) => i % 3 !== 2)) {
        const gradient = viewOf(layout, grads!, name);
        const norm = Math.hypot(...gradient);
        expect(norm, name).toBeGreaterThan(1e-3);
        const moved = (distance: number) => {
          const trained = weights.trained.slice();
          const view = viewOf(layout, trained, name);
          gradient.forEach((value, i) => (view[i] += (distance * value) / norm));
          return trained;
        };
        const central = async (h: number) => ((await lossAt(moved(h))) - (await lossAt(moved(-h)))) / (2 * h);
        // Along its own direction the slope is the gradient's norm. Richardson: the error of order h² cancels.
        const slope = (4 * (await central(step / 2)) - (await central(step))) / 3;
        expect(Math.abs(slope - norm), `${name}: ${slope} against ${norm}`).toBeLessThan(0.02 * norm + 0.01);
      }
    },
  );

  it("has the gradient that the base has when both are trained", async () => {
    const frozen = adapted("gpt2");
    const open = adapted("gpt2", { settings: { onlyOptimizeLora: false } });
    const inputs = { ...tokens, mask, denominator };
    const some = await runOn(frozen.spec, frozen.weights, makeLmGradProgram(frozen.spec, shape, 1), inputs);
    const all = await runOn(open.spec, open.weights, makeLmGradProgram(open.spec, shape, 1), inputs);
    expect(all.outputs.loss[0]).toBeCloseTo(some.outputs.loss[0], 5);
    for (const { name } of trainedLayout(frozen.spec).entries) {
      const [a, b] = [
        viewOf(trainedLayout(frozen.spec), some.grads!, name),
        viewOf(trainedLayout(open.spec), all.grads!, name),
      ];
      expect(maxDifference(a, b), name).toBeLessThan(1e-5);
    }
    const word = viewOf(trainedLayout(open.spec), all.grads!, "transformer.wte.weight");
    expect(Math.hypot(...word)).toBeGreaterThan(0.1);
  });
});

describe("what is trained", () => {
  it("is the adapters alone, and of a scalar model its head: gradients carry nothing else", async () => {
    const { plain, spec, weights } = adapted("llama", { head: "scalar" });
    const layout = trainedLayout(spec);
    expect(layout.entries.filter(({ name }) => !name.includes(".lora_")).map(({ name }) => name)).toEqual([
      "score.weight",
    ]);
    expect(layout.size + frozenLayout(spec)!.size).toBe(
      layoutOf(plain).size + 2 * 2 * (2 * (8 + 8) + 2 * (8 + 4) + 3 * (8 + 12)),
    );
    const column = mask.map((_, i) => Math.sin(i));
    const program = makeCriticGradProgram(spec, shape, { cliprangeValue: 10 });
    const { ids, starts, at } = tokens;
    const returns = column.map((v) => v + 1);
    const inputs = { ids, starts, at, mask, oldValues: column, returns, denominator };
    const { grads } = await runOn(spec, weights, program, inputs);
    expect(grads!.length).toBe(layout.size);
    expect(Math.hypot(...viewOf(layout, grads!, "score.weight"))).toBeGreaterThan(1e-3);
    const { outputs } = await runOn(spec, weights, valuesProgram(spec, 16), { ids });
    expect(outputs.values.length).toBe(16);
  });

  it("is chosen by endings of module names, as PEFT's target_modules", () => {
    const modules = (targetModules: string[], family = "gpt2") =>
      withLora(plainSpec(family), { ...SETTINGS, targetModules }).lora!.modules;
    expect(modules(["c_attn"])).toEqual(["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"]);
    // GPT-2 has a c_proj in its attention and one in its MLP.
    expect(modules(["c_proj"])).toHaveLength(4);
    expect(modules(["mlp.c_proj"])).toHaveLength(2);
    expect(modules(["all-linear"])).toEqual(linearModules(plainSpec("gpt2")));
    expect(modules(["all-linear"])).toHaveLength(8);
    expect(modules(["all-linear"], "opt")).toHaveLength(12);
    expect(modules(["all-linear"], "llama")).toHaveLength(14);
    expect(linearModules(plainSpec("llama", "scalar"))).not.toContain("score");
  });

  it("refuses a target that names no module and a rank above a module's smaller side", () => {
    const make = (settings: object) => () => withLora(plainSpec("gpt2"), { ...SETTINGS, ...settings });
    expect(make({ targetModules: ["q_proj"] })).toThrow(/q_proj; expected all-linear or endings like c_attn/);
    expect(make({ targetModules: ["roj"] })).toThrow(/roj/);
    expect(make({ rank: 9 })).toThrow(/rank 9 exceeds the smaller side 8/);
  });

  it("tells programs apart: other adapters, other key", () => {
    const keys = [
      undefined,
      {},
      { rank: 3 },
      { alpha: 5 },
      { onlyOptimizeLora: false },
      { targetModules: ["c_fc"] },
    ].map((settings) =>
      specKey(settings === undefined ? plainSpec("gpt2") : adapted("gpt2", { settings }).spec),
    );
    expect(new Set(keys).size).toBe(keys.length);
  });
});
