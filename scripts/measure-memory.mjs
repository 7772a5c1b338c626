/**
 * Peak resident memory of every process of a run, by role.
 *
 *   node scripts/measure-memory.mjs -- run my.yaml --run-dir DIR
 *
 * Reads VmHWM from /proc every 0.2 s (Linux), so it also sees processes that have ended by the end of the run.
 */
import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const INTERVAL_MS = 200;
const program = join(dirname(fileURLToPath(import.meta.url)), "..", "bin", "troupe.mjs");
const args = process.argv.slice(process.argv.indexOf("--") + 1);
const run = spawn(process.execPath, [program, ...args], { stdio: "inherit" });

/** @type {Map<number, {role: string, kib: number}>} */
const peaks = new Map();
const timer = setInterval(sample, INTERVAL_MS);
run.on("exit", (code) => {
  clearInterval(timer);
  const rows = [...peaks].sort(([, a], [, b]) => a.role.localeCompare(b.role));
  for (const [pid, { role, kib }] of rows)
    console.log(`${role.padEnd(12)} ${pid}  ${Math.round(kib / 1024)} MiB`);
  process.exitCode = code ?? 1;
});

function sample() {
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
  const isOurs = (pid) => pid === run.pid || (parents.has(pid) && isOurs(parents.get(pid).parent));
  for (const [pid, { kib }] of parents) {
    if (!isOurs(pid) || !(kib > 0)) continue;
    const known = peaks.get(pid);
    if (known === undefined) peaks.set(pid, { role: roleOf(pid), kib });
    else known.kib = Math.max(known.kib, kib);
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
