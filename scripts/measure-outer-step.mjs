/**
 * The outer step of averaged parameters on runs of different length: synchronous training against learning rates and
 * momenta of the outer step, same rows, same number of optimizer steps, learners of one process.
 *
 *   node scripts/build.mjs && node scripts/measure-outer-step.mjs [--seeds 3] [--every 16] [--learners 2] [--steps 96]
 *
 * Supervised fine-tuning of one GPT-2 layer on the quickstart's data, 16 rows a step. Prints the held-out loss per token,
 * mean ± standard error over seeds.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const built = join(dirname(fileURLToPath(import.meta.url)), "..", "dist");
const load = (path) => import(join(built, path));
const { generateDataset, toJsonl, vocabularyTexts } = await load("examples/quickstart/generate.js");
const { parseConfig } = await load("src/config/load.js");
const { loadRlhfData } = await load("src/data/datasets.js");
const { writeWordTokenizer } = await load("src/data/tokenizer-files.js");
const { TokenizerPool } = await load("src/data/tokenizer-pool.js");
const { LearnerCompute } = await load("src/learner/learner-compute.js");
const { denominatorOf } = await load("src/learner/shards.js");
const { freshGpt2Spec, toHfConfig } = await load("src/models/model-spec.js");
const { learningRateAt } = await load("src/rl/schedule.js");
const { shuffled } = await load("src/rl/shuffle.js");

const ROWS_PER_STEP = 16;
const SCHEDULE = { learningRate: 1e-2, schedule: "cosine", warmupSteps: 5 };
/** Learning rate and momentum of the outer step. */
const OUTER = [
  [1, 0],
  [0.7, 0.5],
  [1, 0.5],
  [0.7, 0.9],
];

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "3" },
    every: { type: "string", default: "16" },
    learners: { type: "string", default: "2" },
    steps: { type: "string", default: "96" },
  },
});
const [seeds, every, learnerCount, steps] = ["seeds", "every", "learners", "steps"].map((name) =>
  Number(values[name]),
);

const folder = mkdtempSync(join(tmpdir(), "troupe-outer-step-"));
try {
  const tokenizerFolder = join(folder, "tokenizer");
  await writeWordTokenizer(tokenizerFolder, vocabularyTexts());
  const path = join(folder, "rows.jsonl");
  writeFileSync(path, toJsonl(generateDataset({ rows: 2_400, seed: 1 })));
  const tokenizer = await TokenizerPool.open(tokenizerFolder);
  const { config } = parseConfig({
    file: "measure-outer-step",
    text: JSON.stringify({ data: { path, split: [8, 1, 1], maxPromptTokens: 24, maxResponseTokens: 24 } }),
  });
  const { sft } = await loadRlhfData(config.data, 1, ["sft"], tokenizer);
  await tokenizer.close();
  const rows = { vocabularySize: tokenizer.info.vocabSize, padId: tokenizer.info.padId, ...sft };

  const variants = [null, ...OUTER.map(([rate, momentum]) => ({ rate, momentum }))];
  console.log(`${steps} steps, ${learnerCount} learners, H ${every}, ${seeds} seeds`);
  for (const outer of variants) {
    const losses = [];
    for (let seed = 1; seed <= seeds; seed++) losses.push(await train(rows, outer, seed));
    const name = outer === null ? "synchronous" : `${outer.rate} / ${outer.momentum}`;
    console.log(`| ${name} | ${summary(losses)} |`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}

/** @param outer null: gradients are summed in every step @returns held-out loss per token */
async function train({ vocabularySize, padId, train: trainRows, eval: evalRows }, outer, seed) {
  const spec = freshGpt2Spec({
    head: "lm",
    layers: 1,
    hidden: 32,
    heads: 2,
    contextTokens: 64,
    vocabularySize,
    eosTokenId: 0,
    padTokenId: padId,
  });
  const hfConfigJson = JSON.stringify(toHfConfig(spec));
  const settings = {
    engine: { name: "onnx" },
    padId,
    microBatchTokens: 1024,
    stage: "sft",
    hyper: {},
    models: [{ role: "model", hfConfigJson, head: "lm", file: null, initSeed: seed }],
    optimizers: { model: { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0, clipNorm: 1 } },
    ...(outer === null
      ? {}
      : { round: { outerLearningRate: outer.rate, outerMomentum: outer.momentum, averageMoments: true } }),
  };
  const shardCount = outer === null ? 1 : learnerCount;
  const learners = await Promise.all(Array.from({ length: shardCount }, () => LearnerCompute.open(settings)));
  let round = 0;
  for (let step = 1, inRound = 1; step <= steps; step++, inRound++) {
    const minibatch = { kind: "sft", rows: minibatchOf(trainRows, step - 1, seed) };
    const order = {
      shardCount,
      denominators: { main: denominatorOf(minibatch), ptx: 0 },
      learningRates: { model: learningRateAt(SCHEDULE, step - 1, steps) },
      optimizerStep: step,
      innerStep: inRound,
    };
    const size = ROWS_PER_STEP / shardCount;
    const shards = learners.map((_, index) => ({
      index,
      rows: { ...minibatch, rows: minibatch.rows.slice(index * size, (index + 1) * size) },
    }));
    if (outer === null) {
      const { nodes } = await learners[0].computeShards({ ...order, shards });
      await learners[0].applyGradients({ ...order, gradients: nodes[0].gradients });
      continue;
    }
    for (const [i, learner] of learners.entries())
      await learner.round.innerStep({ ...order, shards: [shards[i]] });
    if (inRound < every && step < steps) continue;
    const parts = [];
    for (const learner of learners) parts.push((await learner.round.contribution(1 / shardCount)).values);
    const total = parts[0].map((_, i) => parts.reduce((sum, part) => sum + part[i], 0));
    round += 1;
    for (const learner of learners)
      await learner.outerStep({ total: total.slice(), step: round, updates: inRound });
    inRound = 0;
  }
  const { lossSum, tokens } = await lossOf(learners[0], evalRows);
  for (const learner of learners) await learner.close();
  return lossSum / tokens;
}

async function lossOf(learner, evalRows) {
  const columns = await learner.evaluate({ rows: { kind: "sft", rows: evalRows } });
  const sum = (column) => column.reduce((total, value) => total + value, 0);
  return { lossSum: sum(columns.nll), tokens: sum(columns.tokens) };
}

/** Epochs in an order of their own, as the sft stage. */
function minibatchOf(rows, index, seed) {
  const perEpoch = Math.floor(rows.length / ROWS_PER_STEP);
  const epoch = Math.floor(index / perEpoch);
  const first = (index % perEpoch) * ROWS_PER_STEP;
  return shuffled(rows, { seed, iteration: 0, epoch }).slice(first, first + ROWS_PER_STEP);
}

function summary(losses) {
  const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
  const squares = losses.reduce((sum, loss) => sum + (loss - mean) ** 2, 0);
  return `${mean.toFixed(3)} ± ${Math.sqrt(squares / (losses.length - 1) / losses.length).toFixed(3)}`;
}
