import { expect } from "vitest";
import {
  applyRecord,
  DEFAULT_CORE_CONFIG,
  emptyDurableState,
  makeState,
  nextDeadlineMs,
  reduce,
  type CoordinatorEvent,
  type CoordinatorState,
  type CoreConfig,
  type DurableRecord,
  type Effect,
  type LearnerPosition,
} from "../../../../src/coordinator/core/index.js";

type EffectType = Effect["type"];

/** Drives the core as a shell would, with a manual clock; keeps the journal so that every test can also restart. */
export class CoreDriver {
  nowMs = 1_000;
  state: CoordinatorState;
  readonly journal: DurableRecord[] = [];
  /** Everything since the last `take`. */
  effects: Effect[] = [];
  private requests = 0;

  constructor(private readonly config: Partial<CoreConfig> = {}) {
    this.state = this.fresh();
    this.do({ type: "CoordinatorStarted" });
  }

  do(event: CoordinatorEvent): Effect[] {
    const effects = reduce(this.state, event, this.nowMs);
    let isAfterRecords = false;
    for (const effect of effects) {
      if (effect.type !== "journal") isAfterRecords = true;
      else {
        expect(isAfterRecords, "records come before everything that tells somebody").toBe(false);
        this.journal.push(effect.record);
      }
    }
    this.effects.push(...effects);
    return effects;
  }

  /** Lets time pass, ticking at every deadline on the way. */
  wait(ms: number): Effect[] {
    const untilMs = this.nowMs + ms;
    const all: Effect[] = [];
    for (let i = 0; i < 10_000; i++) {
      const nextMs = Math.max(nextDeadlineMs(this.state), this.nowMs);
      if (nextMs > untilMs) break;
      this.nowMs = nextMs;
      const effects = this.do({ type: "Tick" });
      all.push(...effects);
      if (effects.length === 0) this.nowMs += 1;
    }
    this.nowMs = untilMs;
    return all;
  }

  /** Kills the coordinator and starts another from the journal. */
  restart(): void {
    const durable = emptyDurableState();
    for (const record of JSON.parse(JSON.stringify(this.journal)) as DurableRecord[])
      applyRecord(durable, record);
    expect(durable).toEqual(this.state.durable);
    this.state = this.fresh(durable);
    this.do({ type: "CoordinatorStarted" });
  }

  take<T extends EffectType>(type: T): Extract<Effect, { type: T }>[] {
    const found = this.effects.filter(
      (effect): effect is Extract<Effect, { type: T }> => effect.type === type,
    );
    this.effects = this.effects.filter((effect) => effect.type !== type);
    return found;
  }

  takeOne<T extends EffectType>(type: T): Extract<Effect, { type: T }> {
    const found = this.take(type);
    expect(found, `exactly one ${type}`).toHaveLength(1);
    return found[0];
  }

  rollout(workerId: string, credits = 1, policyVersion = this.state.durable.policyVersion): number {
    const incarnation = this.register(workerId, "rollout", null, policyVersion);
    this.do({ type: "WorkerReady", workerId, incarnation, credits, policyVersion });
    return incarnation;
  }

  /** Joins and, when told to heal, does so at once. */
  learner(workerId: string, position: LearnerPosition | null = null): number {
    const incarnation = this.register(workerId, "learner", position, -1);
    this.heal();
    return incarnation;
  }

  /** Answers every outstanding HealLearner with success. */
  heal(hash = ""): void {
    for (const { workerId, incarnation, healId, stage, step } of this.take("HealLearner")) {
      this.do({ type: "LearnerHealed", workerId, incarnation, healId, position: { stage, step, hash } });
    }
  }

  register(
    workerId: string,
    role: "rollout" | "learner",
    position: LearnerPosition | null,
    policyVersion: number,
  ): number {
    const requestId = `request-${this.requests++}`;
    this.do({ type: "WorkerRegistered", workerId, role, requestId, position, policyVersion });
    return this.take("AcceptWorker").find((accepted) => accepted.requestId === requestId)!.incarnation;
  }

  /** Opens stage "ppo" with policy 0 and a collection of `prompts` experiences in tasks of `perTask`. */
  collect(prompts: number, perTask = prompts, iteration = 0): void {
    this.do({ type: "StageStarted", stage: "ppo" });
    if (this.state.durable.policyVersion < 0)
      this.do({ type: "VersionPublished", policyVersion: 0, sha256: "v0" });
    const tasks = [];
    for (let first = 0; first < prompts; first += perTask) {
      const size = Math.min(perTask, prompts - first);
      const experienceIds = Array.from({ length: size }, (_, i) => `${iteration}/${first + i}/0`);
      tasks.push({ taskId: `task-${iteration}-${first}`, experienceIds });
    }
    this.do({ type: "CollectRequested", iteration, policyVersion: this.state.durable.policyVersion, tasks });
  }

  /** The holder of the id's task delivers it; returns the outcome. */
  deliver(
    experienceId: string,
    from: { workerId: string; incarnation: number; taskId: string; attempt: number },
    change: { policyVersion?: number; bytes?: number; isFinite?: boolean } = {},
  ): string {
    const { workerId, incarnation, taskId, attempt } = from;
    const policyVersion = this.state.durable.policyVersion;
    this.do({
      type: "ExperiencesReceived",
      workerId,
      incarnation,
      experiences: [{ taskId, attempt, experienceId, policyVersion, bytes: 10, isFinite: true, ...change }],
    });
    return this.take("AckExperiences").at(-1)!.outcomes[0];
  }

  /** Fills a collection completely with one worker. */
  collectAll(prompts: number, iteration = 0): string[] {
    this.collect(prompts, prompts, iteration);
    const incarnation = this.rollout("filler", 100);
    for (const task of this.take("AssignTask")) {
      for (const id of task.experienceIds) expect(this.deliver(id, task)).toBe("admitted");
    }
    this.do({ type: "WorkerLeft", workerId: "filler", incarnation });
    return [...this.takeOne("CollectCompleted").experienceIds];
  }

  requestStep(step: number, experienceIds: readonly string[] = [], isFinalUse = true): void {
    this.do({
      type: "StepRequested",
      stage: "ppo",
      step,
      experienceIds,
      input: { step },
      shardCount: 4,
      isFinalUse,
    });
  }

  /** Every member of the running step votes the same. */
  voteAll(hash: string, isFinite = true): void {
    const active = this.state.volatile.activeStep!;
    const { generation, manifest } = active;
    for (const { workerId, incarnation } of active.members) {
      this.do({ type: "StepVote", workerId, incarnation, generation, step: manifest.step, isFinite, hash });
    }
  }

  private fresh(durable = emptyDurableState()): CoordinatorState {
    return makeState({ ...DEFAULT_CORE_CONFIG, ...this.config }, durable);
  }
}
