import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { describe, expect, it } from "vitest";
import { loadConfig, parseConfig } from "../../../src/config/load.js";
import { layered, PRESETS, QUICKSTART_PRESETS } from "../../../src/config/presets.js";
import { packageRoot } from "../../../src/shared/paths.js";

const DATA = "data: {path: rows.jsonl}\n";
const parse = (text: string, sources: object = {}) => parseConfig({ text: DATA + text, ...sources }).config;

describe("where values come from", () => {
  it("a file yields to the environment, which yields to --set, which yields to flags", () => {
    const text = "ppo: {lam: 0.1, gamma: 0.2, cliprange: 0.3}\nseed: 1\n";
    const env = { TROUPE__PPO__GAMMA: "0.5", TROUPE__PPO__CLIPRANGE: "0.6", TROUPE__SEED: "2" };
    const config = parse(text, {
      env,
      sets: ["ppo.cliprange=0.7", "seed=3"],
      flags: { seed: 4, name: undefined },
    });
    expect([config.ppo.lam, config.ppo.gamma, config.ppo.cliprange, config.seed]).toEqual([0.1, 0.5, 0.7, 4]);
    expect(config.name).toBe("run");
  });

  it("variable names ignore case and underscores inside a name", () => {
    const env = {
      TROUPE__PPO__ROLLOUT_BATCH_SIZE: "256",
      TROUPE__CLUSTER__LEASETTLMS: "20000",
      TROUPE_SKIP_BUILD: "1",
    };
    const config = parse("", { env });
    expect([config.ppo.rolloutBatchSize, config.cluster.leaseTtlMs]).toEqual([256, 20_000]);
  });

  it("values of --set are YAML, text fields excepted", () => {
    const sets = [
      "stages=[sft, reward]",
      "ppo.ema={decay: 0.9}",
      "name=123",
      "data.promptTemplate=Q: {prompt} A:",
      "model.path=null",
    ];
    const config = parse("", { sets });
    expect(config.stages).toEqual(["sft", "reward"]);
    expect(config.ppo.ema).toEqual({ decay: 0.9 });
    expect(config.name).toBe("123");
    expect(config.data.promptTemplate).toBe("Q: {prompt} A:");
    expect(config.model.path).toBeNull();
  });

  it("later --set wins, and a new union type starts its branch afresh", () => {
    const text = "ppo: {klController: {type: fixed, coef: 0.3}}\n";
    const sets = [
      "ppo.lam=0.1",
      "ppo.lam=0.2",
      "ppo.klController.type=adaptive",
      "ppo.klController.target=3",
    ];
    const { ppo } = parse(text, { sets });
    expect(ppo.lam).toBe(0.2);
    expect(ppo.klController).toEqual({
      type: "adaptive",
      initCoef: 0.1,
      target: 3,
      horizonExperiences: 10_000,
    });
  });

  it("sections with nothing in them, and aliases within reason, are fine", () => {
    const config = parse("ppo:\n  # lam: 1\nsft: {optimizer: &o {beta1: 0.8}}\nreward: {optimizer: *o}\n");
    expect([config.ppo.lam, config.sft.optimizer.beta1, config.reward.optimizer.beta1]).toEqual([
      0.95, 0.8, 0.8,
    ]);
  });

  it("relative paths start from the working folder", () => {
    const config = parse("cluster: {tokenFile: token}\n", {
      file: "/elsewhere/my.yaml",
      sets: ["reward.path=rm"],
    });
    expect(config.data.path).toBe(resolve("rows.jsonl"));
    expect(config.cluster.tokenFile).toBe(resolve("token"));
    expect(config.reward.path).toBe(resolve("rm"));
  });

  it("reads a file from disk, and names it when it is missing or no config", async () => {
    const folder = mkdtempSync(join(tmpdir(), "troupe-config-"));
    const file = join(folder, "my.yaml");
    writeFileSync(file, `${DATA}seed: 7\n`);
    expect((await loadConfig({ file })).config.seed).toBe(7);
    await expect(loadConfig({ file: join(folder, "none.yaml") })).rejects.toThrow(
      /none\.yaml does not exist/,
    );
    await expect(loadConfig({ file: folder })).rejects.toThrow(/is not a file/);
    writeFileSync(file, " ".repeat(2 ** 20 + 1));
    await expect(loadConfig({ file })).rejects.toThrow(/Is it the data set/);
  });
});

describe("the result", () => {
  it("is complete and frozen all the way down", () => {
    const config = parse("");
    expect(Object.isFrozen(config)).toBe(true);
    expect(Object.isFrozen(config.ppo.actor)).toBe(true);
    expect(Object.isFrozen(config.stages)).toBe(true);
    expect(() => ((config as { seed: number }).seed = 2)).toThrow(TypeError);
  });

  it("trains a tokenizer when there is no model to take one from", () => {
    expect(parse("").model.tokenizer).toEqual({ type: "train", vocabularySize: 2048 });
    expect(parse("model: {path: gpt2}").model.tokenizer).toEqual({ type: "from-model" });
  });

  it("comes with the sizes that follow", () => {
    const text =
      "ppo: {rolloutBatchSize: 12, samplesPerPrompt: 4, generationBatches: 2, minibatchSize: 16, ppoEpochs: 3, iterations: 5}\n";
    const { derived } = parseConfig({ text: DATA + text });
    expect(derived).toEqual({
      experiencesPerCollection: 48,
      experiencesPerIteration: 96,
      minibatchesPerEpoch: 6,
      optimizerStepsPerIteration: 18,
      optimizerSteps: 90,
      experiencesPerMicroShard: 2,
      tasksPerCollection: 3,
      sequenceTokens: 112,
    });
  });

  it("warns of processes that would be idle and of warm-up that never ends", () => {
    const text = "cluster: {learners: 9, rollouts: 20, minLearners: 10}\nppo: {actor: {warmupSteps: 100}}\n";
    const { warnings } = parseConfig({ text: DATA + text });
    expect(warnings.join("\n")).toMatch(/1 learner will be idle/);
    expect(warnings.join("\n")).toMatch(/12 of 20 rollout workers will be idle/);
    expect(warnings.join("\n")).toMatch(/waits until 1 more join/);
    expect(warnings.join("\n")).toMatch(/warmupSteps 100 never ends.*= 100 optimizer steps/);
  });

  it("is the same when read back from what a run directory keeps", () => {
    const config = parse("preset: deepspeed-chat\nppo: {klController: {type: adaptive}}\n");
    expect(parseConfig({ text: JSON.stringify(config) }).config).toEqual(config);
  });
});

describe("presets", () => {
  it("deepspeed-chat has DeepSpeed-Chat's semantics", () => {
    const { ppo, sft, reward, seed } = parse("preset: deepspeed-chat\n");
    expect([sft.lossOn, reward.loss, reward.initFrom, seed]).toEqual(["all", "span", "base", 1234]);
    expect(ppo.klController).toEqual({ type: "fixed", coef: 0.1 });
    expect([ppo.cliprange, ppo.cliprangeValue, ppo.clipRewardValue, ppo.gamma, ppo.lam]).toEqual([
      0.2, 0.2, 5, 1, 0.95,
    ]);
    expect([ppo.whitenAdvantages, ppo.eosGap, ppo.normalizeScores, ppo.lossDenominator]).toEqual([
      false,
      true,
      false,
      "microbatch-tokens",
    ]);
    expect([
      ppo.actor.learningRate,
      ppo.critic.learningRate,
      ppo.actor.beta1,
      ppo.actor.beta2,
      ppo.ema,
    ]).toEqual([9.65e-6, 5e-6, 0.9, 0.95, null]);
  });

  it("what the user gives lies on top of the preset", () => {
    const { ppo } = parse(
      "preset: deepspeed-chat\nppo: {cliprange: 0.3, klController: {coef: 0.2}, ema: {}}\n",
    );
    expect([ppo.cliprange, ppo.klController, ppo.ema]).toEqual([
      0.3,
      { type: "fixed", coef: 0.2 },
      { decay: 0.992 },
    ]);
    expect(ppo.eosGap).toBe(true);
    expect(parse("", { sets: ["preset=deepspeed-chat"] }).ppo.eosGap).toBe(true);
  });

  it.each(Object.keys(PRESETS))("%s loads with nothing but data", (preset) => {
    expect(parse(`preset: ${preset}\n`).preset).toBe(preset);
  });

  it.each(Object.entries(QUICKSTART_PRESETS))("quickstart settings %s load", (_, base) => {
    expect(parseConfig({ text: DATA, base }).config.stages).toEqual(["sft", "reward", "ppo"]);
  });

  it("layers merge mappings, replace lists and other union branches", () => {
    const under = { a: { x: 1, y: [1, 2] }, k: { type: "fixed", coef: 1 } };
    expect(layered(under, { a: { y: [3] }, k: { coef: 2 } })).toEqual({
      a: { x: 1, y: [3] },
      k: { type: "fixed", coef: 2 },
    });
    expect(layered(under, { k: { type: "adaptive" } })).toEqual({
      a: { x: 1, y: [1, 2] },
      k: { type: "adaptive" },
    });
    expect(layered(under, { a: null })).toEqual({ a: null, k: { type: "fixed", coef: 1 } });
  });
});

describe("examples", () => {
  const folder = join(packageRoot, "examples");
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) =>
    /\.ya?ml$/.test(name),
  );

  it("there are some", () => expect(files.length).toBeGreaterThan(0));

  it.each(files)("examples/%s loads", (name) => {
    const { config } = parseConfig({ text: readFileSync(join(folder, name), "utf8"), file: name });
    expect(config.data.path).not.toBe("");
  });

  it("the quickstart command trains the same model on the same kind of rows as examples/quickstart/config.yaml", () => {
    const file = join(folder, "quickstart", "config.yaml");
    const example = parseConfig({ text: readFileSync(file, "utf8"), file }).config;
    const { model, data, generation } = parseConfig({
      text: DATA,
      base: QUICKSTART_PRESETS.quickstart,
    }).config;
    expect(model.fresh).toEqual(example.model.fresh);
    expect({ ...data, path: example.data.path }).toEqual(example.data);
    expect(generation).toEqual(example.generation);
  });
});
