/**
 * What bfloat16 on the wire does to the quality of training: the same runs with both wires, over several seeds.
 *
 *   node scripts/measure-wire.mjs [--seeds 1,2,3] [--out DIR]
 *
 * A run is sft, reward and ppo of a two-layer model on the quickstart's data with one learner: any number of learners
 * gives the same bits, since every node of the gradients' tree is rounded whether it is sent or not. Prints one row a
 * run, then means and the standard deviations between seeds.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const program = join(dirname(fileURLToPath(import.meta.url)), "..", "bin", "troupe.mjs");
const WIRES = ["f32", "bf16"];

const settings = {
  "model.fresh.layers": 2,
  "model.fresh.hidden": 64,
  "model.fresh.heads": 2,
  "sft.epochs": 2,
  "sft.batchSize": 16,
  "reward.epochs": 1,
  "reward.batchSize": 16,
  "reward.optimizer.learningRate": 3e-3,
  "ppo.iterations": 10,
  "ppo.rolloutBatchSize": 64,
  "ppo.minibatchSize": 32,
  "ppo.ppoEpochs": 1,
  "ppo.actor.learningRate": 5e-4,
  "cluster.rollouts": 1,
  "cluster.learners": 1,
  "cluster.microShards": 4,
};

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1,2,3" },
    out: { type: "string", default: mkdtempSync(join(tmpdir(), "troupe-wire-")) },
  },
});

const COLUMNS = ["sft eval loss", "reward accuracy", "held-out reward", "gold score"];
const rowsOf = { f32: [], bf16: [] };
print(["wire", "seed", ...COLUMNS]);
for (const seed of values.seeds.split(",")) {
  for (const wire of WIRES) {
    const row = await measure(wire, seed);
    rowsOf[wire].push(row);
    print([wire, seed, ...row.map((value) => value.toFixed(3))]);
  }
}
for (const wire of WIRES)
  print([wire, "mean ± sd", ...COLUMNS.map((_, i) => spread(rowsOf[wire].map((row) => row[i])))]);

async function measure(wire, seed) {
  const runDir = join(values.out, `${wire}-${seed}`);
  const sets = { ...settings, seed, "cluster.wire": wire };
  const args = Object.entries(sets).flatMap(([key, value]) => ["--set", `${key}=${value}`]);
  const run = spawn(process.execPath, [program, "quickstart", "--run-dir", runDir, ...args], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  const code = await new Promise((resolve) => run.on("exit", resolve));
  if (code !== 0) throw new Error(`${wire}, seed ${seed}: exit ${code}`);
  const { sft, reward, ppo } = JSON.parse(readFileSync(join(runDir, "summary.json"), "utf8"));
  return [sft.evalLossAfter, reward.heldOutAccuracy, ppo.heldOutReward.after, ppo.goldScore.after];
}

function spread(numbers) {
  const mean = numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
  const squares = numbers.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return `${mean.toFixed(3)} ± ${Math.sqrt(squares / Math.max(1, numbers.length - 1)).toFixed(3)}`;
}

function print(cells) {
  console.log(`| ${cells.join(" | ")} |`);
}
