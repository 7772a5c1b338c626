import { expect, it } from "vitest";
import { nextDeadlineMs, type AssignTask } from "../../../../src/coordinator/core/index.js";
import { CoreDriver } from "./core-driver.js";

const EXPERIENCE_BYTES = 1_000;

/** Workers with two tasks each, most tasks waiting, and as much asked for ahead as there is no room for. */
class Fleet {
  readonly core: CoreDriver;
  private readonly incarnations: number[] = [];
  private assigned: AssignTask[] = [];

  constructor(
    readonly workers: number,
    readonly tasks: number,
  ) {
    this.core = new CoreDriver({
      maxStalenessVersions: 1,
      capacityExperiences: 2 * tasks,
      capacityBytes: 1.2 * tasks * EXPERIENCE_BYTES,
    });
    this.core.collect(tasks, 1);
    for (let i = 0; i < workers; i++) this.incarnations.push(this.core.rollout(`r${i}`, 2));
    this.assigned = this.core.take("AssignTask");
  }

  askAhead(): void {
    this.core.collect(this.tasks, 1, 1);
  }

  /** An answer arrives, is admitted, and its worker gets the next task. */
  deliver(count: number): void {
    for (let i = 0; i < count; i++) {
      const { taskId, attempt, workerId, incarnation, experienceIds } = this.assigned.shift()!;
      const experiences = experienceIds.map((experienceId) => ({
        ...{ taskId, attempt, experienceId, policyVersion: 0, bytes: EXPERIENCE_BYTES, isFinite: true },
      }));
      this.core.nowMs += 0.1;
      this.core.do({ type: "ExperiencesReceived", workerId, incarnation, experiences });
      for (const effect of this.core.effects) if (effect.type === "AssignTask") this.assigned.push(effect);
      this.core.effects = [];
    }
  }

  beat(count: number): void {
    for (let i = 0; i < count; i++) {
      this.core.nowMs += 0.1;
      const worker = i % this.workers;
      this.core.do({
        type: "WorkerHeartbeat",
        workerId: `r${worker}`,
        incarnation: this.incarnations[worker],
      });
      nextDeadlineMs(this.core.state);
    }
    this.core.effects = [];
  }

  /** Connections break; the workers come back with another name each. */
  reconnect(count: number): void {
    for (let i = 0; i < count; i++) {
      this.core.do({ type: "WorkerDisconnected", workerId: `r${i}`, incarnation: this.incarnations[i] });
      this.core.rollout(`again-${i}`, 2);
      this.core.effects = [];
    }
  }
}

const EVENTS = 150;

/** CPU time of EVENTS events of each kind, the least of three fleets. */
function costOf(workers: number, tasks: number): number {
  let least = Infinity;
  for (let round = 0; round < 3; round++) {
    const fleet = new Fleet(workers, tasks);
    const spent = (run: () => void): number => {
      const before = process.cpuUsage();
      run();
      const { user, system } = process.cpuUsage(before);
      return user + system;
    };
    const calm = spent(() => {
      fleet.beat(EVENTS);
      fleet.deliver(EVENTS);
    });
    fleet.askAhead(); // one event, as large as what it asks for
    const full = spent(() => {
      fleet.deliver(EVENTS);
      fleet.reconnect(EVENTS);
    });
    least = Math.min(least, calm + full);
  }
  return least;
}

it("events cost by what they change, not by how many tasks wait: 3,000 workers and 8,192 tasks against a sixteenth", () => {
  costOf(188, 512); // compiled by now
  const small = costOf(188, 512);
  const large = costOf(3_000, 8_192);
  // A look at every task at every event would make it 16 times as much, one at every pair of them 256 times.
  expect(large / small).toBeLessThan(8);
});
