// Checks that a quickstart's summary.json holds what docs/operations.md promises, with finite numbers and a balanced ledger.
import { readFileSync } from "node:fs";

const path = process.argv[2];
const summary = JSON.parse(readFileSync(path, "utf8"));
const problems = [];
const number = (name) => {
  const value = name.split(".").reduce((at, key) => at?.[key], summary);
  if (!Number.isFinite(value)) problems.push(`${name}: expected a finite number, got ${value}`);
  return value;
};
for (const name of [
  "sft.evalLossBefore",
  "sft.evalLossAfter",
  "reward.heldOutAccuracy",
  "ppo.heldOutReward.before",
  "ppo.heldOutReward.after",
  "ppo.goldScore.before",
  "ppo.goldScore.after",
  "ppo.klToRef",
  "ppo.iterations",
  "processes.rollout",
  "processes.learner",
  "seconds",
])
  number(name);
const { admitted, trained, dropped, buffered } = summary.ppo?.experiences ?? {};
if (!(admitted > 0) || admitted !== trained + dropped + buffered) {
  problems.push(
    `ppo.experiences: expected admitted = trained + dropped + buffered, got ${admitted} = ${trained} + ${dropped} + ${buffered}`,
  );
}
if (!(summary.sft?.evalLossAfter < summary.sft?.evalLossBefore))
  problems.push("sft.evalLossAfter: expected below evalLossBefore");
if (!/^[0-9a-f]{64}$/.test(summary.stateSha256 ?? ""))
  problems.push(`stateSha256: expected 64 hex digits, got ${summary.stateSha256}`);
for (const problem of problems) console.error(`${path}: ${problem}`);
if (problems.length > 0) process.exit(1);
console.log(`${path}: complete, ledger balances (${admitted} = ${trained} + ${dropped} + ${buffered})`);
