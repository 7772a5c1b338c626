import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { compareWithTwin, type Campaign } from "../../../src/chaos/campaign.js";
import type { ChaosRun } from "../../../src/chaos/chaos-run.js";
import { auditJournal, auditRecords } from "../../../src/chaos/journal-audit.js";
import { RECOVERY_NAMES, type RecoveryTimes } from "../../../src/chaos/recovery.js";
import { historyOf } from "../../../src/chaos/replay-probe.js";
import { reportOf, reportText } from "../../../src/chaos/report.js";
import type { TrainingPlan } from "../../../src/chaos/training.js";
import { openLevelLog } from "../../../src/coordinator/journal/index.js";
import type { Summary } from "../../../src/launcher/summary.js";

const plan: TrainingPlan = {
  iterations: 2,
  experiencesPerIteration: 16,
  stepsPerIteration: 4,
  usesPerExperience: 4,
  isReproducible: true,
  mayDrop: [],
};
const journal = auditRecords(historyOf(60), plan);
const { trained } = journal;
const summary: Summary = {
  ppo: { iterations: 2, klToRef: 0.5, experiences: { admitted: trained, trained, dropped: 0, buffered: 0 } },
  seconds: 10,
  stateSha256: "a".repeat(64),
};
const noTimes = Object.fromEntries(RECOVERY_NAMES.map((name) => [name, []])) as unknown as RecoveryTimes;
const twin: ChaosRun = {
  ...{ run: 0, runDir: "twin", faults: [], seconds: 10, summary, journal, learnersGivenUp: 0 },
  ...{ recovery: noTimes, violations: [] },
};
const killed = {
  planned: { number: 1, role: "rollout", signal: "SIGKILL", stoppedMs: 0 },
  ...{ run: 1, name: "rollout-0", phase: "collecting", stage: "ppo", iteration: 1, optimizerStep: 3 },
} as unknown as ChaosRun["faults"][number];
const run: ChaosRun = { ...twin, run: 1, seconds: 20, faults: [killed] };
const invariants = (changed: Partial<Summary>) =>
  compareWithTwin(twin, { ...run, summary: { ...summary, ...changed } }, plan).map(
    ({ invariant }) => invariant,
  );

describe("a run under faults against the one without", () => {
  it("may differ in time, and in nothing else", () => {
    expect(invariants({ seconds: 99 })).toEqual([]);
    expect(invariants({ stateSha256: "b".repeat(64) })).toEqual(["final state"]);
    expect(invariants({ ppo: { ...summary.ppo!, klToRef: 0.6 } })).toEqual(["summary"]);
  });

  it("has a ledger that balances, and says what the journal says", () => {
    const with_ = (experiences: Record<"admitted" | "trained" | "dropped" | "buffered", number>) =>
      invariants({ ppo: { ...summary.ppo!, experiences } });
    const whole = { admitted: trained, trained, dropped: 0, buffered: 0 };
    expect(with_({ ...whole, admitted: trained + 1 })).toContain("ledger");
    expect(with_({ ...whole, trained: trained - 1, buffered: 1 })).toContain("ledger");
  });
});

const campaignOf = (runs: readonly ChaosRun[], over: Partial<Campaign> = {}): Campaign =>
  ({
    options: { seed: 7, rollouts: 2, learners: 2, leaseTtlMs: 10_000 },
    ...{ plan, twin, runs, violations: [], ...over },
  }) as unknown as Campaign;
const replay = { records: 10_000, ms: 200 };

describe("the report of a campaign", () => {
  it("tells kills, recovery times, throughput kept and the final state", () => {
    const recovery: RecoveryTimes = { ...noTimes, rolloutNoticed: [40, 1_600], workersAttached: [900] };
    const text = reportText(reportOf(campaignOf([{ ...run, recovery }]), replay));
    expect(text).toMatch(/^1 faults in 1 runs of 2 iterations, 2 rollouts, 2 learners, seed 7$/m);
    expect(text).toMatch(/^1 +1 +SIGKILL +rollout-0 +collecting +ppo iteration 1, step 3$/m);
    expect(text).toMatch(/its tasks are free +2 +.*1\.60 s +1 s: MISSED$/m);
    expect(text).toMatch(/all living workers registered +1 +.*2 s: kept$/m);
    expect(text).toMatch(/^throughput kept +50 %/m);
    expect(text).toMatch(/^final state +equal \(sha256 aaaaaaaaaaaaaaaa/m);
    expect(text).toMatch(/^violations +0$/m);
  });

  it("tells a different final state and every violation", () => {
    const other = { ...run, summary: { ...summary, stateSha256: "b".repeat(64) } };
    const violations = [{ run: 1, invariant: "final state", detail: "b, without faults a" } as const];
    const text = reportText(reportOf(campaignOf([other], { violations }), replay));
    expect(text).toMatch(/^final state +DIFFERENT/m);
    expect(text).toMatch(/^violations +1\n {2}run 1: final state: b, without faults a$/m);
  });

  it("says nothing is equal when nothing was compared", () => {
    const noRun = reportOf(campaignOf([]), replay);
    expect(noRun).toMatchObject({ isFinalHashEqual: null, throughputKept: 0 });
    expect(reportText(noRun)).toMatch(/^final state +not compared: there was no run under faults$/m);
    const failed = { ...twin, summary: undefined };
    const text = reportText(reportOf(campaignOf([], { twin: failed }), replay));
    expect(text).toMatch(/^final state +not compared: the run without faults has none$/m);
  });
});

it("a journal whose beginning was folded into a snapshot is not audited", async () => {
  const folder = await mkdtemp(join(tmpdir(), "troupe-audit-"));
  try {
    const log = await openLevelLog(join(folder, "journal"));
    const [first, second, ...rest] = historyOf(60);
    await log.append([{ record: first }, { record: second }]);
    await log.compact();
    await log.append(rest.map((record) => ({ record })));
    await log.close();
    await expect(auditJournal(folder, plan)).rejects.toThrow(/the first 2 records were folded/);
  } finally {
    await rm(folder, { recursive: true });
  }
});
