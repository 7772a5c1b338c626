/** Thirty times `kill -9` of whatever process, one after another, at moments drawn from a seed. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { runCampaign } from "../../src/chaos/campaign.js";
import { FAULT_ROLES } from "../../src/chaos/faults.js";
import { timeReplay } from "../../src/chaos/replay-probe.js";
import { reportOf, reportText } from "../../src/chaos/report.js";

const KILLS = 30;
/** A slow machine takes minutes; what must hold does not depend on it. */
const PATIENCE_MS = 600_000;

const folder = mkdtempSync(join(tmpdir(), "troupe-storm-"));
afterAll(() => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));

describe("thirty kills in a row", { timeout: PATIENCE_MS }, () => {
  it("break no promise, change no bit, and cost at most the optimizer step in flight each", async () => {
    const campaign = await runCampaign({
      kills: KILLS,
      roles: FAULT_ROLES,
      signals: ["SIGKILL"],
      longestStopMs: 0,
      seed: 1,
      rollouts: 2,
      learners: 2,
      iterations: 12,
      leaseTtlMs: 10_000,
      gapMs: 0,
      folder,
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const report = reportOf(campaign, await timeReplay(1_000));
    const page = reportText(report);
    expect(report.violations, page).toEqual([]);
    expect(report.isFinalHashEqual, page).toBe(true);
    expect(report.faults).toHaveLength(KILLS);
    expect(new Set(report.faults.map(({ victim }) => victim.split("-")[0])).size).toBe(FAULT_ROLES.length);
    expect(report.stepsBegunAgain, page).toBeLessThanOrEqual(KILLS);
    console.log(page);
  });
});
