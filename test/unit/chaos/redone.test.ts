import { describe, expect, it } from "vitest";
import { redone } from "../../../src/chaos/campaign.js";
import type { ChaosRun } from "../../../src/chaos/chaos-run.js";
import { ProcessTable } from "../../../src/chaos/process-table.js";
import type { SupervisorEvent } from "../../../src/launcher/supervisor.js";

const killed = { planned: { signal: "SIGKILL" } };
const run = (
  stepsBegunAgain: number,
  stepsReplayed: number,
  learnersGivenUp = 0,
  faults = [killed, killed],
) =>
  redone({ journal: { stepsBegunAgain, stepsReplayed }, faults, learnersGivenUp } as unknown as ChaosRun).map(
    ({ invariant }) => invariant,
  );

describe("what kills may cost", () => {
  it("is one step in flight each, and no committed one", () => {
    expect(run(2, 0)).toEqual([]);
    expect(run(3, 0)).toEqual(["redone"]);
    expect(run(0, 1)).toEqual(["redone"]);
  });

  it("is more when the learners ended because no coordinator came back in time", () => {
    expect(run(0, 5, 2)).toEqual([]);
    const table = new ProcessTable();
    const died = (role: string, text: string) =>
      table.note({
        type: "died",
        role,
        name: `${role}-0`,
        cause: { kind: "error", text },
      } as SupervisorEvent);
    died("learner", "killed (SIGKILL): by hand, or by the kernel for want of memory");
    died("rollout", "exit code 69 (coordinator unreachable)");
    expect(table.learnersGivenUp).toBe(0);
    died("learner", "exit code 69 (coordinator unreachable)");
    expect(table.learnersGivenUp).toBe(1);
  });
});
