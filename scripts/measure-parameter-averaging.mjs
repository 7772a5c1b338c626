/**
 * Synchronous training against averaged parameters on the same token budget: quality, bytes through the coordinator, time.
 *
 *   node scripts/measure-parameter-averaging.mjs [--out DIR] [NAME ...]
 *
 * Every case is a whole run (sft, reward, ppo) of a one-layer model on the quickstart's data. A straggler is a learner
 * that is stopped (SIGSTOP) for 300 of every 400 ms. Prints one row of docs/parameter-averaging.md per case.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const program = join(dirname(fileURLToPath(import.meta.url)), "..", "bin", "troupe.mjs");
const STOPPED_MS = 300;
const RUNNING_MS = 100;

const common = {
  "model.fresh.layers": 1,
  "model.fresh.hidden": 32,
  "model.fresh.heads": 2,
  "sft.epochs": 1,
  "sft.batchSize": 16,
  "sft.optimizer.learningRate": 1e-2,
  "reward.epochs": 1,
  "reward.batchSize": 32,
  "reward.optimizer.learningRate": 5e-3,
  "ppo.iterations": 6,
  "ppo.rolloutBatchSize": 128,
  "ppo.minibatchSize": 8,
  "ppo.ppoEpochs": 1,
  "ppo.actor.learningRate": 5e-4,
  "ppo.critic.learningRate": 1e-3,
  "cluster.rollouts": 1,
  "cluster.allReduce": "star",
  "cluster.microShards": 4,
};
const plain = { "cluster.outerLearningRate": 1, "cluster.outerMomentum": 0 };
const diloco = { "cluster.outerLearningRate": 0.7, "cluster.outerMomentum": 0.9 };
const averaging = (learners, every, outer = plain) => ({
  "cluster.sync": "parameters",
  "cluster.learners": learners,
  "cluster.syncEvery": every,
  ...outer,
});
const trainingOnly = { stages: "[sft, reward]", "cluster.minLearners": 2 };
const cases = {
  "sync-L2": { sets: { "cluster.learners": 2 } },
  "H16-L2": { sets: averaging(2, 16) },
  "H4-L2": { sets: averaging(2, 4) },
  "H64-L2": { sets: averaging(2, 64) },
  "H16-L4": { sets: averaging(4, 16) },
  // All learners from the first step on, and no sampling, which would hide their times.
  "sync-L2-straggler": { sets: { "cluster.learners": 2, ...trainingOnly }, straggler: true },
  "H16-L2-straggler": { sets: { ...averaging(2, 16), ...trainingOnly }, straggler: true },
  "H16-L2-nesterov": { sets: averaging(2, 16, diloco) },
  "H4-L4": { sets: averaging(4, 4) },
  "H64-L4": { sets: averaging(4, 64) },
  "H16-L2-fresh-moments": { sets: { ...averaging(2, 16), "cluster.averageMoments": false } },
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { out: { type: "string", default: mkdtempSync(join(tmpdir(), "troupe-averaging-")) } },
});
for (const name of positionals.length > 0 ? positionals : Object.keys(cases)) {
  if (!(name in cases)) throw new Error(`no case ${name}; expected one of ${Object.keys(cases).join(", ")}`);
  console.log(await measure(name, cases[name], join(values.out, name)));
}

async function measure(name, { sets, straggler = false }, runDir) {
  const args = Object.entries({ ...common, ...sets }).flatMap(([key, value]) => ["--set", `${key}=${value}`]);
  const run = spawn(process.execPath, [program, "quickstart", "--run-dir", runDir, ...args], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  let bytes = 0;
  const scrape = setInterval(() => {
    void readBytes(runDir).then((seen) => (bytes = Math.max(bytes, seen)));
  }, 200);
  const slow = straggler ? setInterval(() => stopFor(runDir), STOPPED_MS + RUNNING_MS) : undefined;
  const code = await new Promise((resolve) => run.on("exit", resolve));
  clearInterval(scrape);
  clearInterval(slow);
  if (code !== 0) return `| ${name} | exit ${code} |`;
  const { sft, reward, ppo } = JSON.parse(readFileSync(join(runDir, "summary.json"), "utf8"));
  const updates = updateSeconds(runDir);
  return [
    "",
    name,
    sft.evalLossAfter.toFixed(3),
    reward.heldOutAccuracy.toFixed(3),
    ppo?.heldOutReward.after.toFixed(2) ?? "",
    ppo?.goldScore?.after.toFixed(3) ?? "",
    (bytes / 1e6).toFixed(1),
    updates.toFixed(0),
    "",
  ]
    .join(" | ")
    .trim();
}

/** Gradient or parameter bytes through the coordinator so far, both ways. */
async function readBytes(runDir) {
  try {
    const { httpAddress } = JSON.parse(readFileSync(join(runDir, "coordinator.json"), "utf8"));
    const base = httpAddress.startsWith("http") ? httpAddress : `http://${httpAddress}`;
    const text = await (await fetch(new URL("/metrics", base))).text();
    const matches = text.matchAll(/^troupe_allreduce_bytes_total\{[^}]*\} (\S+)$/gm);
    return [...matches].reduce((sum, [, value]) => sum + Number(value), 0);
  } catch {
    return 0; // not up yet, or over
  }
}

/** Wall time of sft and reward with their evaluations, seconds: in ppo most of it is sampling. */
function updateSeconds(runDir) {
  const lines = (...path) =>
    readFileSync(join(runDir, ...path), "utf8")
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
  const starts = lines("logs", "coordinator.ndjson");
  return lines("metrics.jsonl")
    .filter(({ kind, stage }) => kind === "stage" && stage !== "ppo")
    .reduce((sum, { stage, time }) => {
      const started = starts.find(({ msg }) => msg === `stage ${stage} starts`).time;
      return sum + (Date.parse(time) - Date.parse(started)) / 1000;
    }, 0);
}

function stopFor(runDir) {
  const pid = firstLearner(runDir);
  if (pid === undefined) return;
  process.kill(pid, "SIGSTOP");
  setTimeout(() => process.kill(pid, "SIGCONT"), STOPPED_MS);
}

/** The learner with the lowest process id: the same one every time. */
function firstLearner(runDir) {
  for (const name of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    try {
      const command = readFileSync(`/proc/${name}/cmdline`, "utf8").split("\0");
      if (command.includes("learner") && command.some((word) => word.includes(runDir))) return Number(name);
    } catch {
      // ended between the listing and the reading
    }
  }
  return undefined;
}
