/**
 * What holding reference and reward model as int8 costs in quality, on the models of a finished run.
 *
 *   node scripts/compare-frozen.mjs RUN_DIR [PROMPTS]
 *
 * The run's sft model and its trained policy answer the same prompts of its data; every answer is judged by the f32 and by
 * the int8 reference and reward model. Then the reward model ranks pairs of its data both ways.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "yaml";
import { TokenizerPool } from "../dist/src/data/tokenizer-pool.js";
import { createEngine } from "../dist/src/engine/create-engine.js";
import { parseModelConfig, layoutOf } from "../dist/src/models/model-spec.js";
import { loadWeights } from "../dist/src/models/checkpoint-dir.js";
import { weightFiles } from "../dist/src/models/model-files.js";
import { RolloutCompute } from "../dist/src/rollout/rollout-compute.js";
import { Scorer } from "../dist/src/rollout/scorer.js";
import { frozenForm } from "../dist/src/models/frozen.js";

const [run, count = "256"] = process.argv.slice(2);
const config = parse(await readFile(join(run, "config.yaml"), "utf8"));
const folder = (name) => join(run, "models", name);
const hfConfig = (name) => readFile(join(folder(name), "config.json"), "utf8");
const pairs = (await readFile(config.data.path, "utf8"))
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line));
const tokenizer = await TokenizerPool.open(folder("sft"));
const sampling = {
  ...{ temperature: 1, topK: 0, topP: 1, minNewTokens: 1, repetitionPenalty: 1, greedy: false },
  ...{ maxNewTokens: config.generation?.maxNewTokens ?? 24, seed: 7 },
};

const engine = { name: "onnx", threads: 1 };
const judges = {};
for (const frozenWeights of ["f32", "int8"]) {
  const created = await createEngine(engine);
  const replica = async (name, head) => {
    const spec = parseModelConfig(JSON.parse(await hfConfig(name)), head);
    const form = frozenWeights === "int8" ? frozenForm(spec) : undefined;
    const params = form
      ? created.engine.createFrozenArena(layoutOf(spec), form)
      : created.engine.createArena(layoutOf(spec));
    await params.write((await loadWeights(await weightFiles(folder(name)), spec)).values);
    return { spec, params, ...(form ? { form } : {}) };
  };
  judges[frozenWeights] = {
    scorer: new Scorer(created.engine),
    ref: await replica("sft", "lm"),
    reward: await replica("reward", "scalar"),
  };
}

const prompts = await tokenizer.encode(pairs.slice(-Number(count)).map(({ prompt }) => prompt));
for (const name of ["sft", "ppo"]) {
  const actor = await RolloutCompute.open({
    ...{ engine, slots: 16, eosIds: [tokenizer.info.eosId] },
    models: [{ role: "actor", hfConfigJson: await hfConfig(name), head: "lm" }],
  });
  await actor.loadModel({ role: "actor", path: await weightFiles(folder(name)) });
  const rollouts = await actor.generateOnly({
    prompts: prompts.map((promptIds, i) => ({
      promptIndex: i,
      sampleIndex: 0,
      experienceId: `${i}`,
      promptIds,
    })),
    policyVersion: 0,
    sampling,
  });
  await actor.close();
  const [f32, int8] = await Promise.all(
    Object.values(judges).map(async ({ scorer, ref, reward }) => ({
      logprobs: await scorer.logprobs(ref, rollouts, 1),
      scores: await scorer.scores(reward, rollouts),
    })),
  );
  const tokenGaps = f32.logprobs.flatMap((row, i) =>
    Array.from(row, (x, t) => Math.abs(x - int8.logprobs[i][t])),
  );
  const scoreGaps = f32.scores.map((x, i) => Math.abs(x - int8.scores[i]));
  const kl = ({ logprobs }) =>
    mean(rollouts.map((r, i) => r.logprobs.reduce((sum, x, t) => sum + x - logprobs[i][t], 0)));
  console.log(`answers of ${name}, ${tokenGaps.length} tokens`);
  console.log(`  |Δ log-probability|  mean ${show(mean(tokenGaps))}  max ${show(Math.max(...tokenGaps))}`);
  console.log(
    `  |Δ score|            mean ${show(mean(scoreGaps))}  max ${show(Math.max(...scoreGaps))}  spread of scores ${show(deviation(f32.scores))}`,
  );
  console.log(`  mean score           f32 ${show(mean(f32.scores))}  int8 ${show(mean(int8.scores))}`);
  console.log(`  KL per answer        f32 ${show(kl(f32))}  int8 ${show(kl(int8))}`);
}
const texts = (field) => tokenizer.encode(pairs.slice(-2000).map((pair) => pair[field]));
const [asked, chosen, rejected] = [await texts("prompt"), await texts("chosen"), await texts("rejected")];
const ranks = {};
for (const [name, { scorer, reward }] of Object.entries(judges)) {
  const judge = (answers) => scorer.scores(reward, asked.map((promptIds, i) => ({ promptIds, responseIds: answers[i] }))); // prettier-ignore
  const [good, bad] = [await judge(chosen), await judge(rejected)];
  ranks[name] = good.map((x, i) => x > bad[i]);
  console.log(`pairs ranked rightly   ${name} ${show(mean(ranks[name].map(Number)))} of ${good.length}`);
}
console.log(`pairs ranked otherwise ${ranks.f32.filter((x, i) => x !== ranks.int8[i]).length}`);
await tokenizer.close();

function mean(values) {
  return values.reduce((sum, x) => sum + x, 0) / values.length;
}
function deviation(values) {
  const middle = mean(values);
  return Math.sqrt(mean(values.map((x) => (x - middle) ** 2)));
}
function show(x) {
  return x.toPrecision(4);
}
