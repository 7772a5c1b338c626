import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  applyRecord,
  compareExperienceIds,
  DEFAULT_CORE_CONFIG,
  emptyDurableState,
  livePayloadIds,
  makeState,
  reduce,
  status,
  type CoordinatorEvent,
  type CoordinatorState,
  type DurableRecord,
} from "../../../../src/coordinator/core/index.js";
import { shareShards } from "../../../../src/coordinator/core/steps.js";
import type { Member } from "../../../../src/coordinator/core/state.js";
import { decodeSnapshot, encodeSnapshot } from "../../../../src/coordinator/journal/encoding.js";

/** A move names things loosely ("the n-th member"); it becomes an event against the state at hand. */
const moveArb = fc.record({
  // What makes a run advance comes up more often than what breaks it.
  kind: fc.oneof(
    { weight: 1, arbitrary: fc.nat({ max: 23 }) },
    { weight: 4, arbitrary: fc.constantFrom(3, 4, 5, 8, 8, 9, 10, 15, 16, 18, 18, 19, 20, 21) },
  ),
  a: fc.nat({ max: 5 }),
  b: fc.nat({ max: 3 }),
  isSo: fc.boolean(),
  waitMs: fc.constantFrom(0, 0, 0, 0, 1, 1, 20, 20, 100, 100, 400, 1_100, 2_500),
});
type Move = typeof moveArb extends fc.Arbitrary<infer T> ? T : never;

const idOf = (iteration: number, prompt: number): string => `${iteration}/${prompt}/0`;

function toEvent(state: CoordinatorState, { kind, a, b, isSo }: Move): CoordinatorEvent {
  const { durable, volatile } = state;
  const members = [...volatile.members.values()];
  const member = members[a % Math.max(1, members.length)];
  const workerId = member?.workerId ?? "nobody";
  // Now and then a signature that is out of date.
  const incarnation = (member?.incarnation ?? 7) - (b === 3 ? 1 : 0);
  const tasks = [...volatile.tasks.values()];
  const task = tasks[a % Math.max(1, tasks.length)];
  const taskId = task?.taskId ?? "none";
  const attempt = task?.leases[0]?.attempt ?? 1;
  const active = volatile.activeStep;
  const iteration = durable.committedIteration + 1;
  switch (kind) {
    case 0:
      return { type: "Tick" };
    case 1:
      return {
        type: "WorkerRegistered",
        workerId: `r${a}`,
        role: "rollout",
        requestId: `${a}${b}`,
        position: null,
        policyVersion: durable.policyVersion,
      };
    case 2: {
      const position =
        isSo && durable.stage !== null
          ? { stage: durable.stage, step: durable.finishedStep, hash: "" }
          : null;
      return {
        type: "WorkerRegistered",
        workerId: `l${a}`,
        role: "learner",
        requestId: `${a}${b}`,
        position,
        policyVersion: -1,
      };
    }
    case 3:
    case 4:
      return { type: "WorkerReady", workerId, incarnation, credits: b, policyVersion: durable.policyVersion };
    case 5:
      return {
        type: "WorkerHeartbeat",
        workerId,
        incarnation,
        policyVersion: durable.policyVersion,
        appliedStep: durable.finishedStep - (b === 2 ? 1 : 0),
      };
    case 6:
      return { type: isSo ? "WorkerDisconnected" : "WorkerLeft", workerId, incarnation };
    case 7:
      return { type: "WorkerDraining", workerId, incarnation };
    case 8:
    case 9:
    case 10: {
      const holder = task?.leases[0] ?? { workerId, incarnation };
      const experienceId = [...(task?.openIds ?? [])][b] ?? idOf(iteration, b);
      return {
        type: "ExperiencesReceived",
        workerId: holder.workerId,
        incarnation: holder.incarnation,
        // Some twice in one message, some with a neighbour that is judged differently.
        experiences: [experienceId, ...(a > 2 ? [idOf(iteration, a - 3)] : [])].map((id, i) => ({
          taskId,
          attempt,
          experienceId: id,
          policyVersion: durable.policyVersion - (a === 5 ? 1 : 0),
          bytes: 10 * (b + 1),
          isFinite: a !== 4 || i > 0,
        })),
      };
    }
    case 11:
      return {
        type: "TaskFailed",
        workerId: task?.leases[0]?.workerId ?? workerId,
        incarnation: task?.leases[0]?.incarnation ?? incarnation,
        taskId,
        attempt,
        reason: "x",
      };
    case 12:
      return { type: "StageStarted", stage: isSo ? "ppo" : "ppo2" };
    case 13:
      return a === 0 ? { type: "StageFinished", stage: durable.stage ?? "ppo" } : { type: "Tick" };
    case 14:
      return { type: "VersionPublished", policyVersion: durable.policyVersion + (isSo ? 1 : 0), sha256: "s" };
    case 15: {
      const first = iteration + (isSo ? 0 : 1);
      const experienceIds = [0, 1, 2].map((prompt) => idOf(first, prompt));
      return {
        type: "CollectRequested",
        iteration: first,
        policyVersion: durable.policyVersion,
        tasks: [{ taskId: `t${first}`, experienceIds }],
      };
    }
    case 16:
    case 17: {
      const buffered = [...durable.experiences]
        .filter(([, entry]) => entry.status === "buffered")
        .map(([id]) => id);
      return {
        type: "StepRequested",
        stage: durable.stage ?? "ppo",
        step: durable.finishedStep + 1,
        experienceIds: buffered.slice(0, b),
        input: null,
        shardCount: 4,
        isFinalUse: isSo,
      };
    }
    case 18:
    case 19:
    case 20: {
      const voter = active?.members[a % active.members.length];
      const from = {
        workerId: voter?.workerId ?? workerId,
        incarnation: voter?.incarnation ?? incarnation,
        generation: (active?.generation ?? 0) - (b === 3 ? 1 : 0),
        step: active?.manifest.step ?? 1,
      };
      if (b === 0 && isSo) return { type: "StepComputed", ...from };
      if (b === 3 && a === 0)
        return { type: "ApplyFailed", ...from, step: durable.finishedStep, code: "STORAGE", reason: "x" };
      return {
        type: "StepVote",
        ...from,
        isFinite: !(b === 2 && isSo),
        hash: b === 1 && isSo ? "odd" : `h${active?.manifest.step}`,
      };
    }
    case 21: {
      const healing = members.find((other) => other.heal !== null);
      const heal = healing?.heal;
      return {
        type: "LearnerHealed",
        workerId: healing?.workerId ?? workerId,
        incarnation: healing?.incarnation ?? incarnation,
        healId: heal?.healId ?? 0,
        position: { stage: durable.stage ?? "", step: heal?.step ?? 0, hash: "" },
      };
    }
    case 22:
      return isSo
        ? { type: "IterationCommitted", iteration, promptCursor: 0, resume: { n: a } }
        : {
            type: "CheckpointSaved",
            checkpointId: `c${a}`,
            stage: durable.stage ?? "ppo",
            step: Math.max(0, durable.finishedStep - b),
            resume: null,
          };
    default:
      return active === null
        ? { type: "Tick" }
        : {
            type: "ReduceFailed",
            generation: active.generation,
            step: active.manifest.step,
            workerId: isSo ? workerId : null,
            reason: "x",
          };
  }
}

const config = {
  ...DEFAULT_CORE_CONFIG,
  leaseTtlMs: 1_000,
  taskTimeoutMs: 2_000,
  stepTimeoutMs: 1_500,
  healTimeoutMs: 1_200,
  regroupMs: 200,
  maxStalenessVersions: 1,
  capacityExperiences: 6,
  capacityBytes: 100,
  maxStepAttempts: 50,
  maxSkippedSteps: 50,
};

/** A cluster at work: without it most sequences never get past an empty stage. */
const PRELUDE: readonly Move[] = [12, 14, 15, 1, 1, 2, 2, 21, 21, 3, 3].map((kind, i) => ({
  kind,
  a: i,
  b: 2,
  isSo: kind !== 2,
  waitMs: 0,
}));

const sum = (counts: Record<string, number>): number =>
  Object.values(counts).reduce((total, count) => total + count, 0);

describe("reduce, for any sequence of events", () => {
  it("keeps the books balanced, the buffer bounded, the payloads accounted for, and replays to the same state", () => {
    fc.assert(
      fc.property(fc.array(moveArb, { minLength: 20, maxLength: 250 }), (moves) => {
        const state = makeState(config);
        const journal: DurableRecord[] = [];
        const payloads = new Set<string>();
        let nowMs = 1;
        const run = (event: CoordinatorEvent): void => {
          const generationBefore = state.durable.generation;
          for (const effect of reduce(state, event, nowMs)) {
            if (effect.type === "StartStep") expect(effect.generation).toBeGreaterThan(generationBefore);
            if (effect.type !== "journal") continue;
            journal.push(effect.record);
            for (const id of effect.putPayloads ?? []) payloads.add(id);
            for (const id of effect.deletePayloads ?? []) expect(payloads.delete(id)).toBe(true);
          }
          const { counts, experiences } = state.durable;
          expect(counts.admitted).toBe(counts.trained + sum(counts.dropped) + counts.buffered);
          expect(counts.requested).toBe(counts.open + sum(counts.abandoned) + counts.admitted);
          expect(counts.open + counts.buffered).toBeLessThanOrEqual(config.capacityExperiences);
          expect(counts.bufferedBytes).toBeLessThanOrEqual(config.capacityBytes);
          const buffered = [...experiences.values()].filter((entry) => entry.status === "buffered");
          expect(buffered.length).toBe(counts.buffered);
          expect(buffered.reduce((total, entry) => total + entry.bytes, 0)).toBe(counts.bufferedBytes);
          expect(new Set(livePayloadIds(state.durable))).toEqual(payloads);
          for (const member of state.volatile.members.values()) {
            for (const taskId of member.leases)
              expect(state.volatile.tasks.get(taskId)?.leases.map(({ workerId }) => workerId)).toContain(
                member.workerId,
              );
          }
          status(state);
        };
        run({ type: "CoordinatorStarted" });
        for (const move of [...PRELUDE, ...moves]) {
          nowMs += move.waitMs;
          run(toEvent(state, move));
        }
        const replayed = emptyDurableState();
        for (const record of JSON.parse(JSON.stringify(journal)) as DurableRecord[])
          applyRecord(replayed, record);
        expect(replayed).toEqual(state.durable);
        const { sequence, state: decoded } = decodeSnapshot(
          "s",
          encodeSnapshot({ sequence: 9, state: replayed }),
        );
        expect(sequence).toBe(9);
        expect(decoded).toEqual(state.durable);
      }),
      { numRuns: 600 },
    );
  });

  it("gives the same effects for the same events", () => {
    fc.assert(
      fc.property(fc.array(moveArb, { minLength: 10, maxLength: 80 }), (moves) => {
        const play = (): unknown[] => {
          const state = makeState(config);
          let nowMs = 1;
          const all: unknown[] = [reduce(state, { type: "CoordinatorStarted" }, nowMs)];
          for (const move of [...PRELUDE, ...moves]) {
            nowMs += move.waitMs;
            all.push(reduce(state, toEvent(state, move), nowMs));
          }
          return JSON.parse(JSON.stringify(all)) as unknown[];
        };
        expect(play()).toEqual(play());
      }),
      { numRuns: 50 },
    );
  });
});

describe("shard ranges", () => {
  it("cover every shard once, in rank order, and differ by at most one", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 40 }),
        (learners, shardCount) => {
          const members = Array.from(
            { length: learners },
            (_, i) => ({ workerId: `l${i}`, incarnation: i }) as Member,
          );
          const shares = shareShards(members, shardCount);
          let next = 0;
          for (const share of shares) {
            expect(share.firstShard).toBe(next);
            next += share.shardCount;
          }
          expect(next).toBe(shardCount);
          const sizes = shares.map((share) => share.shardCount);
          expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
        },
      ),
    );
  });
});

describe("experience ids", () => {
  it("are ordered by iteration, prompt and sample as numbers", () => {
    const part = fc.nat({ max: 2_000 });
    const idArb = fc.tuple(part, part, part);
    fc.assert(
      fc.property(idArb, idArb, (a, b) => {
        const expected = a[0] - b[0] || a[1] - b[1] || a[2] - b[2];
        expect(Math.sign(compareExperienceIds(a.join("/"), b.join("/")))).toBe(Math.sign(expected));
      }),
    );
  });
});
