// npm run load -- [--rollouts N] [--learners N] [--flooders N] [--flood-rate N]
//                 [--experience-bytes N | --tokens N] [--elements N] [--collection N]
//                 [--task-ms N] [--step-ms N] [--heartbeat-ms N] [--seconds N] [--idle]
//                 [--growth] [--profile DIR] [--json FILE]
//
// Drives one real coordinator process with workers whose compute is faked, over loopback, and prints what it could
// take: docs/scaling.md says how to read the numbers. --idle: no task is ever finished, so what is left are heartbeats.
// --growth measures a table over numbers of workers instead of one
// row; --profile leaves a CPU profile of the coordinator in DIR.
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { buildIfStale } from "./build.mjs";

const NUMBERS = {
  rollouts: 100,
  learners: 2,
  flooders: 0,
  "flood-rate": 0,
  "experience-bytes": 1024,
  tokens: 0,
  elements: 16_384,
  collection: 0,
  "prompts-per-task": 16,
  "task-ms": 0,
  "step-ms": 0,
  "heartbeat-ms": 1000,
  seconds: 30,
};
const { values } = parseArgs({
  options: {
    ...Object.fromEntries(Object.keys(NUMBERS).map((name) => [name, { type: "string" }])),
    growth: { type: "boolean" },
    idle: { type: "boolean" },
    profile: { type: "string" },
    "run-dir": { type: "string" },
    json: { type: "string" },
  },
});
const numbers = Object.fromEntries(
  Object.entries(NUMBERS).map(([name, fallback]) => {
    const number = values[name] === undefined ? fallback : Number(values[name]);
    if (Number.isInteger(number) && number >= 0) return [name, number];
    console.error(`--${name} must be a whole number, got ${values[name]}`);
    process.exit(2);
  }),
);

if (process.env.TROUPE_SKIP_BUILD === undefined) await buildIfStale();
const { measureLoad, tableOfLoads, rowOfLoad, defaultCollection } = await import("../dist/src/load/index.js");

const optionsOf = (rollouts, learners) => ({
  rollouts,
  learners,
  flooders: numbers.flooders,
  floodPerSecond: numbers["flood-rate"],
  experienceBytes: numbers.tokens > 0 ? 116 + 16 * numbers.tokens : numbers["experience-bytes"],
  gradientElements: numbers.elements,
  collection: numbers.collection || defaultCollection(rollouts, numbers["prompts-per-task"]),
  promptsPerTask: numbers["prompts-per-task"],
  taskMs: numbers["task-ms"],
  stepMs: numbers["step-ms"],
  heartbeatMs: numbers["heartbeat-ms"],
  seconds: numbers.seconds,
  isIdle: values.idle ?? false,
});
const plan = values.growth
  ? [
      [10, 2],
      [100, 2],
      [1000, 2],
      [3000, 2],
      [100, 8],
      [100, 32],
    ]
  : [[numbers.rollouts, numbers.learners]];

const results = [];
let isWhole = true;
for (const [rollouts, learners] of plan) {
  try {
    const result = await measureLoad(optionsOf(rollouts, learners), {
      onNote: (text) => console.error(text),
      runDir: values["run-dir"],
      nodeFlags: values.profile === undefined ? [] : ["--cpu-prof", "--cpu-prof-dir", values.profile],
    });
    results.push(result);
    if (values.growth) console.error(rowOfLoad(result));
  } catch (error) {
    isWhole = false;
    console.error(`${rollouts} rollouts, ${learners} learners: ${error.message}`);
  }
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(results, null, 2)}\n`);
}
console.log(tableOfLoads(results));
if (!values.growth && results.length > 0) console.log(JSON.stringify(results[0], null, 2));
process.exit(isWhole ? 0 : 1);
