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
  type CoreConfig,
  type DurableRecord,
  type DurableState,
} from "../../../../src/coordinator/core/index.js";
import { shareShards } from "../../../../src/coordinator/core/steps.js";
import type { Member } from "../../../../src/coordinator/core/state.js";
import { decodeSnapshot, encodeSnapshot } from "../../../../src/coordinator/journal/encoding.js";
import { moveArb, PRELUDE, toEvent } from "./moves.js";

const config: CoreConfig = {
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

/** Every other run averages parameters: steps are rounds. */
const configOf = (isRound: boolean): CoreConfig => ({
  ...config,
  round: isRound ? { timeoutMs: 2_000 } : null,
});

/** Complete: a new type of record does not compile without an entry, and none goes without ever being written. */
const RECORD_TYPES = Object.keys({
  EpochStarted: 0,
  StageStarted: 0,
  StageFinished: 0,
  IterationStarted: 0,
  IterationCommitted: 0,
  CollectionOpened: 0,
  ExperiencesAdmitted: 0,
  ExperiencesAbandoned: 0,
  ExperiencesDropped: 0,
  StepPrepared: 0,
  GenerationOpened: 0,
  StepCommitted: 0,
  StepSkipped: 0,
  VersionPublished: 0,
  CheckpointSaved: 0,
  CheckpointQuarantined: 0,
  ScaleSet: 0,
} satisfies Record<DurableRecord["type"], 0>);

const sum = (counts: Record<string, number>): number =>
  Object.values(counts).reduce((total, count) => total + count, 0);

describe("reduce, for any sequence of events", () => {
  it("keeps the books balanced, the buffer bounded, the payloads accounted for, and replays to the same state", () => {
    const seen = new Set<string>();
    const property = fc.property(
      fc.boolean(),
      fc.array(moveArb, { minLength: 20, maxLength: 250 }),
      (isRound, moves) => {
        const journal: DurableRecord[] = [];
        const replay = (): DurableState => {
          const replayed = emptyDurableState();
          for (const record of JSON.parse(JSON.stringify(journal)) as DurableRecord[])
            applyRecord(replayed, record);
          return replayed;
        };
        let state = makeState(configOf(isRound));
        const payloads = new Set<string>();
        let nowMs = 1;
        const run = (event: CoordinatorEvent): void => {
          const generationBefore = state.durable.generation;
          for (const effect of reduce(state, event, nowMs)) {
            if (effect.type === "StartStep") expect(effect.generation).toBeGreaterThan(generationBefore);
            if (effect.type !== "journal") continue;
            journal.push(effect.record);
            seen.add(effect.record.type);
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
          const event = toEvent(state, move);
          // Another coordinator: all that it knows is in the journal.
          if (event.type === "CoordinatorStarted") state = makeState(configOf(isRound), replay());
          run(event);
        }
        const replayed = replay();
        expect(replayed).toEqual(state.durable);
        const { sequence, state: decoded } = decodeSnapshot(
          "s",
          encodeSnapshot({ sequence: 9, state: replayed }),
        );
        expect(sequence).toBe(9);
        expect(decoded).toEqual(state.durable);
      },
    );
    // Again while a rare record has not been written: what is drawn differs from run to run.
    for (let round = 0; round < 10 && (round === 0 || seen.size < RECORD_TYPES.length); round++)
      fc.assert(property, { numRuns: 600 });
    expect([...seen].sort()).toEqual([...RECORD_TYPES].sort());
  });

  it("gives the same effects for the same events", () => {
    fc.assert(
      fc.property(fc.boolean(), fc.array(moveArb, { minLength: 10, maxLength: 80 }), (isRound, moves) => {
        const play = (): unknown[] => {
          const state = makeState(configOf(isRound));
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
