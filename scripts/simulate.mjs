// npm run simulate -- [--seeds N] [--seed S] [--threads T]
//
// Runs the coordinator's core and journal format in a simulated cluster, N seeds from S on (default 10000 from 1), and
// checks every run against the contract. Without --seeds, --seed S runs that one seed and shows it. Exit code 1 and a
// shrunk fault schedule when an invariant is violated.
import { parseArgs } from "node:util";
import { buildIfStale } from "./build.mjs";

const { values } = parseArgs({
  options: { seeds: { type: "string" }, seed: { type: "string" }, threads: { type: "string" } },
});
const wholeNumber = (name, text, fallback) => {
  if (text === undefined) return fallback;
  const number = Number(text);
  if (Number.isInteger(number) && number >= 0) return number;
  console.error(`--${name} must be a whole number, got ${text}`);
  process.exit(2);
};
const firstSeed = wholeNumber("seed", values.seed, 1);
const seeds = wholeNumber("seeds", values.seeds, values.seed === undefined ? 10_000 : 1);
const threads = wholeNumber("threads", values.threads, undefined);

await buildIfStale();
const { makeScenario, runCampaign, shrink } = await import("../dist/src/simulation/index.js");

const startedAtMs = performance.now();
let shownAtMs = startedAtMs;
const rate = (count) => Math.round(count / ((performance.now() - startedAtMs) / 1000));
const result = await runCampaign({
  firstSeed,
  seeds,
  threads,
  onProgress(done) {
    if (performance.now() - shownAtMs < 5000) return;
    shownAtMs = performance.now();
    console.log(
      `${done.seeds}/${seeds} seeds, ${rate(done.seeds)} seeds/s, ${done.failedSeeds.length} failed`,
    );
  },
});
const seconds = ((performance.now() - startedAtMs) / 1000).toFixed(1);
const virtualHours = (result.virtualMs / 3_600_000).toFixed(1);
console.log(
  `${result.seeds} seeds in ${seconds} s (${rate(result.seeds)} seeds/s, ${rate(result.events)} events/s, ${virtualHours} h of cluster time): ` +
    (result.failedSeeds.length === 0
      ? "0 violations"
      : `${result.failedSeeds.length} seeds violate the contract`),
);
if (result.failedSeeds.length > 0) {
  const [seed] = result.failedSeeds;
  console.log(`failing seeds: ${result.failedSeeds.slice(0, 20).join(" ")}`);
  console.log(`seed ${seed}, shrunk:`);
  const { scenario, violations } = shrink(makeScenario(seed));
  console.log(JSON.stringify(scenario, null, 2));
  for (const { invariant, detail } of violations) console.log(`${invariant}: ${detail}`);
  console.log(`again: npm run simulate -- --seed ${seed}`);
  process.exitCode = 1;
}
