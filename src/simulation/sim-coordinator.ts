/**
 * A simulated coordinator: the real core and the real journal encoding inside a shell with the real shell's contract
 * (records durable first, effects in order), which can die at every point of that contract, or be stopped until another
 * has taken over.
 */
import {
  makeState,
  nextDeadlineMs,
  type CoordinatorEvent,
  type CoordinatorState,
  type Effect,
  type JournalEffect,
} from "../coordinator/core/index.js";
import { BrokenLinks } from "../coordinator/broken-links.js";
import { reduceWith } from "./planted.js";
import type { Fault } from "./scenario.js";
import { AppendRefused } from "./sim-journal.js";
import type { ToWorker } from "./sim-process.js";
import { SimLife } from "./sim-life.js";
import { SimReduction } from "./sim-reduction.js";
import { SimRounds } from "./sim-rounds.js";
import { SimTrainLoop } from "./sim-train-loop.js";
import { collectionsOf, Witness } from "./witness.js";
import type { World } from "./world.js";

interface Batch {
  readonly effects: readonly Effect[];
  /** What the experiences of the event hold, by id. */
  readonly contents: ReadonlyMap<string, number> | undefined;
}

/** Of a process that ended by itself. */
const RESTART_MS = 100;
/** From when it goes on until it knows that another has taken over. */
const LEADERSHIP_CHECK_MS = 150;
/** Of the planted bug: it hears workers for so long before its epoch is open. */
const EARLY_MS = 30;

/** What is told again and again while nothing happens. */
const WITHOUT_NEWS: ReadonlySet<Effect["type"]> = new Set([
  "journal",
  "AckHeartbeat",
  "AnnounceVersion",
  "RefreshPolicy",
]);

export class SimCoordinator {
  isStopped = false;
  /** Whose turn at the journal this process is. */
  owner = 0;
  private readonly life: SimLife;
  private state!: CoordinatorState;
  private trainLoop!: SimTrainLoop;
  private queue: Batch[] = [];
  /** Something is being synced or told; what comes now waits. */
  private isBusy = false;
  private tickAtMs = Infinity;
  private readonly reduction: SimReduction;
  private brokenLinks = new BrokenLinks();
  private readonly rounds: SimRounds;
  private readonly witness: Witness;
  private dieAt: { point: Fault["point"]; downMs: number } | null = null;

  constructor(private readonly world: World) {
    this.life = new SimLife(world.scheduler);
    this.reduction = new SimReduction(world, this);
    this.rounds = new SimRounds(world, this);
    this.witness = new Witness(world);
  }

  start(): void {
    this.life.begin();
    this.queue = [];
    this.isBusy = false;
    this.tickAtMs = Infinity;
    this.brokenLinks = new BrokenLinks();
    this.closeStep();
    const { owner, durable } = this.world.journal.open();
    this.owner = owner;
    this.state = makeState(this.world.config, durable);
    this.witness.begin(owner);
    this.trainLoop = new SimTrainLoop(this.world, this);
    if (this.world.planted === "early-registration") this.later(EARLY_MS, () => this.open());
    else this.open();
  }

  /** Only then does it hear anybody. */
  private open(): void {
    this.dispatch({ type: "CoordinatorStarted" });
    this.trainLoop.start(this.state.durable);
  }

  get isAlive(): boolean {
    return this.life.isAlive;
  }

  get isPaused(): boolean {
    return this.life.isPaused;
  }

  pause(): void {
    this.life.pause();
  }

  resume(): void {
    if (!this.isPaused) return;
    this.later(LEADERSHIP_CHECK_MS, () => {
      if (!this.leads) this.end();
    });
    this.life.resume();
  }

  /** No other coordinator has taken over. */
  get leads(): boolean {
    return this.world.journal.owner === this.owner;
  }

  /** A process that may not, or cannot, go on; whoever looks after it starts another if it was the one that leads. */
  private end(): void {
    const isReplaced = this.world.coordinator !== this;
    this.die(isReplaced ? Infinity : RESTART_MS);
  }

  killAt(point: Fault["point"], downMs: number): void {
    if (!this.isAlive) return;
    if (point === "now") this.die(downMs);
    else this.dieAt = { point, downMs };
  }

  /** From the network. */
  receive(event: CoordinatorEvent, contents?: ReadonlyMap<string, number>): void {
    this.life.whenRunning(() => this.dispatch(event, contents));
  }

  dispatch(event: CoordinatorEvent, contents?: ReadonlyMap<string, number>): void {
    const { world, state } = this;
    if (!this.isAlive || this.isStopped) return;
    const nowMs =
      world.scheduler.nowMs + (world.planted === "wall-clock-lease" ? 100_000_000 + world.wallOffsetMs : 0);
    const reduceNow = (one: CoordinatorEvent): Effect[] => {
      const effects = reduceWith(world.planted, state, one, nowMs);
      this.witness.note(one, effects, state);
      if (effects.length > 0) this.enqueue(effects, one === event ? contents : undefined);
      return effects;
    };
    this.witness.watch(event, state, reduceNow);
    this.scheduleTick();
  }

  ready(): readonly string[] {
    return [...this.state.volatile.members.values()]
      .filter((member) => member.role === "learner" && member.state === "ready")
      .map((member) => member.workerId);
  }

  later(delayMs: number, run: () => void): void {
    this.life.later(delayMs, run);
  }

  send(workerId: string, message: ToWorker): void {
    this.world.network.toWorker(workerId, () => this.world.deliver(workerId, message, this));
  }

  // The bulk paths: weights, batches, gradients, parameters.

  sendWeights(workerId: string, policyVersion: number): void {
    const parameters = this.world.weights.get(policyVersion);
    if (parameters === undefined) return;
    this.life.whenRunning(() => this.send(workerId, { type: "Weights", policyVersion, parameters }));
  }

  sendContents(workerId: string, generation: number, experienceIds: readonly string[]): void {
    if (this.isPaused)
      return this.life.whenRunning(() => this.sendContents(workerId, generation, experienceIds));
    if (!this.isAlive || (this.rounds.generation ?? this.reduction.generation) !== generation) return;
    // Advantages are whitened over the whole collection, so all of it is read.
    for (const collection of collectionsOf(this.state.durable, experienceIds)) this.readContents(collection);
    const contents = this.readContents(experienceIds);
    this.send(workerId, { type: "BatchContents", generation, contents });
  }

  /** A payload that is gone ends the run. */
  readContents(experienceIds: readonly string[]): number[] {
    return experienceIds.map((id) => {
      const content = this.world.journal.contents.get(id);
      if (content !== undefined) return content;
      if (!this.leads) return -1; // whoever leads has deleted it
      this.world.history.entries.push({ type: "unreadable", experienceId: id });
      this.isStopped = true;
      return -1;
    });
  }

  receiveContribution(...contribution: Parameters<SimReduction["receive"]>): void {
    this.life.whenRunning(() => this.reduction.receive(...contribution));
  }

  /** What one learner says of another is no proof: their connection may be to blame. */
  receiveBrokenLink(workerId: string, otherId: string, generation: number, step: number): void {
    if (!this.isAlive || this.isPaused || this.reduction.generation !== generation) return;
    const { members } = this.reduction;
    const [a, b] = [workerId, otherId].map(
      (name) => members.find((member) => member.workerId === name)?.incarnation,
    );
    if (a === undefined || b === undefined) return;
    this.brokenLinks.note(a, b);
    const reason = `${workerId} cannot reach ${otherId}`;
    this.dispatch({ type: "ReduceFailed", generation, step, workerId: null, reason });
  }

  /** A learner has trained its part of a round. */
  receiveTrained(...trained: Parameters<SimRounds["finish"]>): void {
    this.life.whenRunning(() => this.rounds.finish(...trained));
  }

  openSum(of: Parameters<SimReduction["open"]>[0]): void {
    this.reduction.open(of);
  }

  private closeStep(): void {
    this.rounds.close();
    this.reduction.close();
  }

  receiveParameters(...read: Parameters<SimTrainLoop["receiveParameters"]>): void {
    this.life.whenRunning(() => this.trainLoop.receiveParameters(...read));
  }

  private scheduleTick(): void {
    const deadlineMs = nextDeadlineMs(this.state);
    if (deadlineMs === Infinity) return;
    const offsetMs = this.world.planted === "wall-clock-lease" ? 100_000_000 + this.world.wallOffsetMs : 0;
    const atMs = Math.max(deadlineMs - offsetMs, this.world.scheduler.nowMs + 1);
    if (this.tickAtMs <= atMs && this.tickAtMs > this.world.scheduler.nowMs) return;
    this.tickAtMs = atMs;
    this.later(atMs - this.world.scheduler.nowMs, () => {
      if (this.tickAtMs !== atMs) return;
      this.tickAtMs = Infinity;
      this.dispatch({ type: "Tick" });
    });
  }

  private enqueue(effects: readonly Effect[], contents: ReadonlyMap<string, number> | undefined): void {
    if (this.world.planted === "ack-before-journal") this.tell(effects);
    this.queue.push({ effects, contents });
    if (!this.isBusy) this.pump();
  }

  /** Tells what needs no record at once; otherwise syncs first. What is decided meanwhile waits its turn. */
  private pump(): void {
    this.isBusy = true;
    while (this.queue.length > 0) {
      if (this.queue.some(({ effects }) => effects[0].type === "journal")) {
        this.later(this.world.random.between(0, 3), () => this.sync());
        return;
      }
      if (!this.tellAll(this.queue.splice(0))) return;
    }
    this.isBusy = false;
  }

  /** All that gathered shares one synced batch; only then does anybody hear of it. */
  private sync(): void {
    const batches = this.queue.splice(0);
    if (this.dieAt?.point === "beforeSync") return this.die(this.dieAt.downMs);
    if (!this.append(batches) && this.world.planted !== "deaf-to-failure") return this.end();
    if (this.dieAt?.point === "afterSync") return this.die(this.dieAt.downMs);
    if (this.tellAll(batches)) this.pump();
  }

  /** False when the journal could not be written: nothing of it may be told. */
  private append(batches: readonly Batch[]): boolean {
    const isRecord = (effect: Effect): effect is JournalEffect => effect.type === "journal";
    try {
      this.world.journal.append(
        this.owner,
        this.state.durable.epoch,
        batches.map(({ effects, contents }) => ({ records: effects.filter(isRecord), contents })),
      );
      return true;
    } catch (error) {
      if (!(error instanceof AppendRefused)) throw error;
      return false;
    }
  }

  /** False when the process died on the way. */
  private tellAll(batches: readonly { effects: readonly Effect[] }[]): boolean {
    const { number } = this.life;
    for (const { effects } of batches) {
      if (this.world.planted !== "ack-before-journal") this.tell(effects);
      if (this.dieAt?.point === "midEffects") this.die(this.dieAt.downMs);
      if (!this.life.isSameLife(number)) return false;
    }
    return true;
  }

  private die(downMs: number): void {
    this.life.end();
    this.dieAt = null;
    this.closeStep();
    // One that was replaced has nothing left to take along.
    if (this.world.coordinator !== this) return;
    this.damageCheckpoint();
    this.world.journal.crash();
    this.world.scheduler.after(downMs, () => {
      if (!this.isAlive && this.world.coordinator === this) this.start();
    });
  }

  /** At most one a run, so that there is always an older one to go on from. */
  private damageCheckpoint(): void {
    const { scenario, checkpoints, damaged } = this.world;
    const newest = [...checkpoints.keys()].at(-1);
    if (scenario.damagesCheckpoints && damaged.size === 0 && newest !== undefined) damaged.add(newest);
  }

  private tell(effects: readonly Effect[]): void {
    if (effects.some(({ type }) => !WITHOUT_NEWS.has(type))) this.world.noteSign();
    for (const effect of effects) {
      this.witness.hear(effect, this.state.durable);
      this.execute(effect);
    }
  }

  private execute(effect: Effect): void {
    switch (effect.type) {
      case "journal":
        return;
      case "AckExperiences":
      case "AssignTask":
      case "AcceptWorker":
      case "AckHeartbeat":
      case "FenceWorker":
      case "ReleaseWorker":
      case "CancelTask":
      case "RefreshPolicy":
      case "AckEvaluation":
        return this.send(effect.workerId, effect);
      case "HealLearner": {
        const { source } = effect;
        if (source.kind !== "checkpoint") return this.send(effect.workerId, effect);
        const { checkpointId } = source;
        const isDamaged = this.world.damaged.has(checkpointId);
        if (!isDamaged || this.world.planted === "trust-checkpoint") {
          if (this.leads) this.witness.restore(checkpointId, isDamaged);
          return this.send(effect.workerId, effect);
        }
        return this.later(1, () =>
          this.dispatch({ type: "CheckpointDamaged", checkpointId, reason: `${checkpointId} is damaged` }),
        );
      }
      case "StartStep": {
        const { members } = effect;
        const ends = members.map(({ incarnation }) => incarnation);
        const { scenario } = this.world;
        const isSharded = scenario.isSharded && scenario.rounds === null && !this.brokenLinks.among(ends);
        for (const member of members) this.send(member.workerId, { ...effect, isSharded });
        return this.world.scenario.rounds === null ? this.reduction.open(effect) : this.rounds.start(effect);
      }
      case "CommitStep":
        this.world.noteCommitted(effect.step, effect.hash);
        this.closeStep();
        for (const member of effect.members) this.send(member.workerId, effect);
        return;
      case "SkipStep":
      case "AbortStep":
        this.closeStep();
        for (const member of effect.members) this.send(member.workerId, effect);
        return;
      case "AnnounceVersion":
        for (const rollout of this.world.rollouts) this.send(rollout.workerId, effect);
        return;
      case "CollectCompleted":
      case "CollectRefused":
      case "EvaluationCompleted":
      case "ExperiencesDropped":
      case "ExperiencesGivenUp":
      case "StepFinished":
      case "StepRefused":
        return this.trainLoop.hear(effect);
      case "StopRun":
        if (!this.leads) return this.end();
        this.world.history.entries.push({ type: "stopped", code: effect.code, diagnosis: effect.diagnosis });
        this.isStopped = true;
        return;
      case "SetAsideCheckpoint":
      case "PauseLearning":
      case "ResumeLearning":
      case "DesiredScaleChanged":
        return;
      case "LeaveRound":
        return this.rounds.leave(effect);
      case "AverageRound":
        return this.rounds.average(effect);
      default:
        effect satisfies never;
    }
  }
}
