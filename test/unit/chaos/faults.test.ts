import { describe, expect, it } from "vitest";
import { plannedFault, type FaultOptions } from "../../../src/chaos/faults.js";
import { AIMED_PHASES } from "../../../src/chaos/phase.js";

const options: FaultOptions = {
  seed: 5,
  roles: ["rollout", "learner", "coordinator"],
  signals: ["SIGKILL", "SIGSTOP"],
  longestStopMs: 4_000,
};
const many = Array.from({ length: 600 }, (_, i) => plannedFault(i + 1, options));
const share = (isSo: (fault: (typeof many)[number]) => boolean) => many.filter(isSo).length / many.length;

describe("the faults drawn from a seed", () => {
  it("are the same each time, one by one, and others with another seed", () => {
    expect(plannedFault(17, options)).toEqual(many[16]);
    expect(plannedFault(17, { ...options, seed: 6 })).not.toEqual(many[16]);
  });

  it("hit every role in every phase with every signal, about equally often", () => {
    for (const role of options.roles)
      for (const phase of AIMED_PHASES)
        for (const signal of options.signals)
          expect(
            share((fault) => fault.role === role && fault.phase === phase && fault.signal === signal),
            `${role} ${phase} ${signal}`,
          ).toBeGreaterThan(0.3 / 30);
    expect(share(({ role }) => role === "coordinator")).toBeCloseTo(1 / 3, 1);
  });

  it("stop a process only with SIGSTOP, some for longer than half of the longest time", () => {
    for (const { signal, stoppedMs } of many) {
      if (signal === "SIGKILL") expect(stoppedMs).toBe(0);
      else expect(stoppedMs).toSatisfy((ms: number) => ms >= 100 && ms <= 4_000);
    }
    expect(share(({ stoppedMs }) => stoppedMs > 2_000)).toBeGreaterThan(0.15);
  });

  it("keep to the roles and signals asked for", () => {
    for (let number = 1; number <= 50; number++)
      expect(plannedFault(number, { ...options, roles: ["learner"], signals: ["SIGKILL"] })).toMatchObject({
        role: "learner",
        signal: "SIGKILL",
      });
  });
});
