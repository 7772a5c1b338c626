/**
 * Peak resident memory of every process of a run, by role.
 *
 *   node scripts/measure-memory.mjs -- run my.yaml --run-dir DIR      of one run
 *   node scripts/measure-memory.mjs [WORD...]                         the table of docs/memory.md: short runs, estimated and
 *                                                                     measured; those whose name holds a word, or all
 *
 * Reads VmHWM from /proc every 0.2 s (Linux), so it also sees processes that have ended by the end of the run.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { estimateMemory } from "../dist/src/cli/memory-estimate.js";
import { loadConfig } from "../dist/src/config/load.js";
import { configSchema } from "../dist/src/config/schema.js";
import { train } from "../dist/src/data/train-tokenizer-thread.js";
import { streamOf, uniformAt } from "../dist/src/shared/rng.js";

const INTERVAL_MS = 200;
const program = join(dirname(fileURLToPath(import.meta.url)), "..", "bin", "troupe.mjs");

const sizes = (layers, hidden, heads) => ({
  "model.fresh": JSON.stringify({ layers, hidden, heads, contextTokens: 256 }),
});
const SHORT = {
  ...{ "sft.epochs": 1, "sft.batchSize": 16, "reward.epochs": 1, "reward.batchSize": 16 },
  ...{ "cluster.rollouts": 1, "cluster.learners": 1, "eval.prompts": 8, "eval.samples": 0 },
  ...{ "data.maxRows": 120, "generation.maxNewTokens": 24, "generation.slots": 16, "ppo.iterations": 12 },
  ...{ "ppo.rolloutBatchSize": 16, "ppo.minibatchSize": 16, "ppo.generationBatches": 1 },
  "checkpoint.everyIterations": 4,
  // Memory is what is asked: a step may take as long as a busy machine needs.
  ...{ "cluster.stepTimeoutMs": 1_800_000, "engine.threads": 1 },
};
const L4 = sizes(4, 256, 4);
const GPT2 = { ...sizes(12, 768, 12), "ppo.iterations": 4, "checkpoint.everyIterations": 2 };
const MIXED = {
  "data.maxPromptTokens": 60,
  "data.maxResponseTokens": 70,
  "data.maxRows": 960,
  "generation.maxNewTokens": 70,
  "ppo.iterations": 4,
};
/** With rows of all lengths up to 130 tokens, and a tokenizer as large as GPT-2's. */
const OWN_DATA = "L4, 50,257 tokens, rows of all lengths";
/** Layers and widths of the two; vocabularies are the quickstart data's, some 100 words, but for that one. */
const RUNS = {
  [OWN_DATA]: { ...L4, ...MIXED },
  L4,
  "L4, sft and reward": { ...L4, stages: '["sft","reward"]' },
  "L4, `engine.frozenWeights: int8`": { ...L4, "engine.frozenWeights": "int8" },
  "L4, `model.lora: {rank: 8}`": { ...L4, "model.lora": "{rank: 8}" },
  "L4, `ppo.staleness: 2`": { ...L4, "ppo.staleness": 2 },
  "L4, three learners, two threads": { ...L4, "cluster.learners": 3, "engine.threads": 2 },
  "GPT-2 small": GPT2,
  "GPT-2 small, two threads": { ...GPT2, "engine.threads": 2 },
  "GPT-2 small, `engine.frozenWeights: int8`": { ...GPT2, "engine.frozenWeights": "int8" },
  "GPT-2 small, `model.lora: {rank: 8}`": { ...GPT2, "model.lora": "{rank: 8}" },
  "GPT-2 small, `engine.recompute: layers`": { ...GPT2, "engine.recompute": "layers" },
};

const separator = process.argv.indexOf("--");
if (separator > 0) {
  const { code, peaks } = await measure(process.argv.slice(separator + 1), "inherit");
  for (const { role, pid, mib } of peaks) console.log(`${role.padEnd(12)} ${pid}  ${mib} MiB`);
  process.exitCode = code;
} else {
  const words = process.argv.slice(2);
  console.log("| run | process | estimated | measured | off by |\n| --- | --- | --- | --- | --- |");
  for (const [name, settings] of Object.entries(RUNS)) {
    if (words.length === 0 || words.some((word) => name.includes(word))) await row(name, settings);
  }
}

async function row(name, settings) {
  const folder = mkdtempSync(join(tmpdir(), "troupe-memory-"));
  try {
    const set = Object.entries({ ...SHORT, ...settings }).flatMap(([key, value]) => [
      "--set",
      `${key}=${value}`,
    ]);
    const runDir = join(folder, "run");
    const command = name === OWN_DATA ? ["run", await ownData(folder)] : ["quickstart"];
    const { code, peaks } = await measure([...command, "--run-dir", runDir, ...set], "ignore");
    if (code !== 0) return console.log(`| ${name} | failed with exit code ${code} |`);
    const { config } = await loadConfig({ file: join(runDir, "config.yaml") });
    const { processes } = await estimateMemory(config);
    for (const role of ["coordinator", "learner", "rollout"]) {
      const measured = Math.max(...peaks.filter((peak) => peak.role === role).map(({ mib }) => mib));
      const found = processes.find((process) => process.role === role);
      if (found === undefined || !Number.isFinite(measured)) continue;
      const estimated = Math.round(found.bytes / 2 ** 20);
      const off = Math.round((100 * (estimated - measured)) / measured);
      console.log(`| ${name} | ${role} | ${estimated} | ${measured} | ${off > 0 ? "+" : ""}${off} % |`);
      if (process.env.PARTS) console.log(found.stage + ": " + found.parts.map(({ name, bytes }) => `${name} ${Math.round(bytes / 2 ** 20)}`).join(", ")); // prettier-ignore
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** @returns a config of rows of 16 to 240 characters, and of a tokenizer that makes tokens of little more than letters */
async function ownData(folder) {
  const words = "the a red blue camera looks wrong i need discount reply hello thanks for asking about".split(
    " ",
  );
  const stream = streamOf("rows");
  let drawn = 0;
  const below = (count) => Math.floor(count * uniformAt(1, stream, drawn++));
  const text = () => {
    const length = 8 + below(112);
    let made = "";
    while (made.length < length) made += `${words[below(words.length)]} `;
    return made.slice(0, length).trim();
  };
  const [rows, tokenizer] = [join(folder, "rows.jsonl"), join(folder, "tokenizer")];
  const lines = Array.from({ length: 960 }, () =>
    JSON.stringify({ prompt: text(), chosen: text(), rejected: text() }),
  );
  writeFileSync(rows, `${lines.join("\n")}\n`);
  const { data } = configSchema.parse({ data: { path: rows } });
  await train({ data, vocabularySize: 260, directory: tokenizer });
  const file = join(tokenizer, "tokenizer.json");
  const json = JSON.parse(readFileSync(file, "utf8"));
  for (let id = 260; id < 50_257; id++) json.model.vocab[`ª${id}`] = id; // of no text
  writeFileSync(file, JSON.stringify(json));
  const config = join(folder, "config.yaml");
  const model = { tokenizer: { type: "path", path: tokenizer } };
  writeFileSync(config, JSON.stringify({ data: { path: rows }, model })); // JSON is YAML
  return config;
}

/** Runs the program and samples it and its descendants until it ends. */
function measure(args, stdio) {
  const run = spawn(process.execPath, [program, ...args], { stdio });
  /** @type {Map<number, {role: string, kib: number}>} */
  const seen = new Map();
  const timer = setInterval(() => sample(run.pid, seen), INTERVAL_MS);
  return new Promise((resolve) => {
    run.on("exit", (code) => {
      clearInterval(timer);
      const peaks = [...seen].map(([pid, { role, kib }]) => ({ role, pid, mib: Math.round(kib / 1024) }));
      resolve({ code: code ?? 1, peaks: peaks.sort((a, b) => a.role.localeCompare(b.role)) });
    });
  });
}

function sample(root, peaks) {
  const parents = new Map();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const status = readFileSync(`/proc/${name}/status`, "utf8");
      const field = (key) => Number(new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(status)?.[1]);
      parents.set(Number(name), { parent: field("PPid"), kib: field("VmHWM") });
    } catch {
      // ended between the listing and the reading
    }
  }
  const isOurs = (pid) => pid === root || (parents.has(pid) && isOurs(parents.get(pid).parent));
  for (const [pid, { kib }] of parents) {
    if (!isOurs(pid) || !(kib > 0)) continue;
    const known = peaks.get(pid);
    if (known === undefined) peaks.set(pid, { role: roleOf(pid), kib });
    else {
      known.kib = Math.max(known.kib, kib);
      if (known.role === "other") known.role = roleOf(pid); // seen first before it had its command line
    }
  }
}

function roleOf(pid) {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
    return words.find((word) => /^(coordinator|rollout|learner|run|quickstart)$/.test(word)) ?? "other";
  } catch {
    return "other";
  }
}
