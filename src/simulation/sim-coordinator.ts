/**
 * The simulated coordinator process: the real core and the real journal encoding inside a shell with the real shell's
 * contract (records durable first, effects in order), which can die at every point of that contract.
 */
import {
  collectedIds,
  iterationOf,
  makeState,
  nextDeadlineMs,
  type CoordinatorEvent,
  type CoordinatorState,
  type Effect,
} from "../coordinator/core/index.js";
import { BrokenLinks } from "../coordinator/broken-links.js";
import type { LogEntry } from "../coordinator/journal/durable-log.js";
import { MemoryLog } from "../coordinator/journal/memory-log.js";
import { reduceWith } from "./planted.js";
import type { Fault } from "./scenario.js";
import type { ToWorker } from "./sim-process.js";
import { SimReduction } from "./sim-reduction.js";
import { SimRounds } from "./sim-rounds.js";
import { SimTrainLoop } from "./sim-train-loop.js";
import { Witness } from "./witness.js";
import type { World } from "./world.js";

interface Batch {
  readonly effects: readonly Effect[];
  /** What the experiences of the event hold, by id. */
  readonly contents: ReadonlyMap<string, number> | undefined;
}

export class SimCoordinator {
  isStopped = false;
  private readonly log = new MemoryLog();
  private readonly contents = new Map<string, number>();
  private state!: CoordinatorState;
  private trainLoop!: SimTrainLoop;
  private isAlive = false;
  /** Counts lives, so that timers of a dead process do nothing. */
  private life = 0;
  private queue: Batch[] = [];
  /** Something is being synced or told; what comes now waits. */
  private isBusy = false;
  private tickAtMs = Infinity;
  private readonly reduction: SimReduction;
  private brokenLinks = new BrokenLinks();
  private readonly rounds: SimRounds;
  private readonly witness: Witness;
  private dieAt: { point: Fault["point"]; downMs: number } | null = null;
  private recordsSinceSnapshot = 0;

  constructor(private readonly world: World) {
    this.reduction = new SimReduction(world, this);
    this.rounds = new SimRounds(world, this);
    this.witness = new Witness(world);
  }

  start(): void {
    this.life += 1;
    this.isAlive = true;
    this.queue = [];
    this.isBusy = false;
    this.tickAtMs = Infinity;
    this.brokenLinks = new BrokenLinks();
    this.closeStep();
    this.state = makeState(this.world.config, this.log.recoverNow());
    this.trainLoop = new SimTrainLoop(this.world, this);
    this.dispatch({ type: "CoordinatorStarted" });
    this.trainLoop.start(this.state.durable);
  }

  killAt(point: Fault["point"], downMs: number): void {
    if (!this.isAlive) return;
    if (point === "now") this.die(downMs);
    else this.dieAt = { point, downMs };
  }

  /** From the network. */
  receive(event: CoordinatorEvent, contents?: ReadonlyMap<string, number>): void {
    if (this.isAlive) this.dispatch(event, contents);
  }

  dispatch(event: CoordinatorEvent, contents?: ReadonlyMap<string, number>): void {
    const { world, state } = this;
    if (!this.isAlive || this.isStopped) return;
    const nowMs =
      world.scheduler.nowMs + (world.planted === "wall-clock-lease" ? 100_000_000 + world.wallOffsetMs : 0);
    const effects = reduceWith(world.planted, state, event, nowMs);
    this.witness.note(event, effects, state);
    if (effects.length > 0) this.enqueue(effects, contents);
    this.scheduleTick();
  }

  ready(): readonly string[] {
    return [...this.state.volatile.members.values()]
      .filter((member) => member.role === "learner" && member.state === "ready")
      .map((member) => member.workerId);
  }

  later(delayMs: number, run: () => void): void {
    const life = this.life;
    this.world.scheduler.after(delayMs, () => {
      if (this.isAlive && life === this.life) run();
    });
  }

  send(workerId: string, message: ToWorker): void {
    this.world.network.toWorker(workerId, () => this.world.deliver(workerId, message));
  }

  // The bulk paths: weights, batches, gradients, parameters.

  sendWeights(workerId: string, policyVersion: number): void {
    const parameters = this.world.weights.get(policyVersion);
    if (this.isAlive && parameters !== undefined)
      this.send(workerId, { type: "Weights", policyVersion, parameters });
  }

  sendContents(workerId: string, generation: number, experienceIds: readonly string[]): void {
    if (!this.isAlive || (this.rounds.generation ?? this.reduction.generation) !== generation) return;
    // Advantages are whitened over the whole collection, so all of it is read.
    for (const collection of this.collectionsOf(experienceIds)) this.readContents(collection.split(" "));
    const contents = this.readContents(experienceIds);
    this.send(workerId, { type: "BatchContents", generation, contents });
  }

  /** A payload that is gone ends the run. */
  readContents(experienceIds: readonly string[]): number[] {
    return experienceIds.map((id) => {
      const content = this.contents.get(id);
      if (content !== undefined) return content;
      this.world.history.entries.push({ type: "unreadable", experienceId: id });
      this.isStopped = true;
      return -1;
    });
  }

  /** The whole collections these experiences belong to, ids joined. */
  private collectionsOf(experienceIds: readonly string[]): string[] {
    const iterations = new Set(experienceIds.map(iterationOf));
    return [...iterations].map((iteration) => collectedIds(this.state.durable, iteration).join(" "));
  }

  receiveContribution(...contribution: Parameters<SimReduction["receive"]>): void {
    if (this.isAlive) this.reduction.receive(...contribution);
  }

  /** What one learner says of another is no proof: their connection may be to blame. */
  receiveBrokenLink(workerId: string, otherId: string, generation: number, step: number): void {
    if (!this.isAlive || this.reduction.generation !== generation) return;
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
    if (this.isAlive) this.rounds.finish(...trained);
  }

  openSum(of: Parameters<SimReduction["open"]>[0]): void {
    this.reduction.open(of);
  }

  private closeStep(): void {
    this.rounds.close();
    this.reduction.close();
  }

  receiveParameters(step: number, parameters: number): void {
    if (this.isAlive) this.trainLoop.receiveParameters(step, parameters);
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
    this.writeJournal(batches);
    if (this.dieAt?.point === "beforeSync") return this.die(this.dieAt.downMs);
    this.commitJournal(batches);
    if (this.dieAt?.point === "afterSync") return this.die(this.dieAt.downMs);
    if (this.tellAll(batches)) this.pump();
  }

  /** False when the process died on the way. */
  private tellAll(batches: readonly { effects: readonly Effect[] }[]): boolean {
    const { life } = this;
    for (const { effects } of batches) {
      if (this.world.planted !== "ack-before-journal") this.tell(effects);
      if (this.dieAt?.point === "midEffects") this.die(this.dieAt.downMs);
      if (!this.isAlive || life !== this.life) return false;
    }
    return true;
  }

  private writeJournal(batches: readonly { effects: readonly Effect[] }[]): void {
    const entries: LogEntry[] = [];
    for (const { effects } of batches) {
      for (const effect of effects) if (effect.type === "journal") entries.push({ record: effect.record });
    }
    this.log.write(entries);
  }

  private commitJournal(batches: readonly Batch[]): void {
    const { history, scenario } = this.world;
    this.log.sync();
    for (const { effects, contents } of batches) {
      for (const effect of effects) {
        if (effect.type !== "journal") continue;
        history.records.push(effect.record);
        this.recordsSinceSnapshot += 1;
        for (const id of effect.putPayloads ?? []) {
          this.contents.set(id, contents!.get(id)!);
          history.contents.set(id, contents!.get(id)!);
        }
        for (const id of effect.deletePayloads ?? []) this.contents.delete(id);
      }
    }
    if (scenario.compactEvery === 0 || this.recordsSinceSnapshot < scenario.compactEvery) return;
    this.recordsSinceSnapshot = 0;
    this.log.compactNow();
  }

  private die(downMs: number): void {
    this.isAlive = false;
    this.dieAt = null;
    this.damageCheckpoint();
    this.log.crash();
    this.world.scheduler.after(downMs, () => {
      if (!this.isAlive) this.start();
    });
  }

  /** At most one a run, so that there is always an older one to go on from. */
  private damageCheckpoint(): void {
    const { scenario, checkpoints, damaged } = this.world;
    const newest = [...checkpoints.keys()].at(-1);
    if (scenario.damagesCheckpoints && damaged.size === 0 && newest !== undefined) damaged.add(newest);
  }

  private tell(effects: readonly Effect[]): void {
    for (const effect of effects) this.execute(effect);
  }

  private execute(effect: Effect): void {
    const { entries, records } = this.world.history;
    switch (effect.type) {
      case "journal":
        return;
      case "AckExperiences":
        effect.experiences.forEach(({ experienceId }, i) =>
          entries.push({
            type: "acked",
            experienceId,
            outcome: effect.outcomes[i],
            durable: records.length,
          }),
        );
        return this.send(effect.workerId, effect);
      case "AssignTask":
        if (effect.redelivery === "hedge")
          entries.push({ type: "hedged", taskId: effect.taskId, workerId: effect.workerId });
        return this.send(effect.workerId, effect);
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
        if (source.kind !== "checkpoint" || !this.world.damaged.has(source.checkpointId))
          return this.send(effect.workerId, effect);
        const { checkpointId } = source;
        return this.later(1, () =>
          this.dispatch({ type: "CheckpointDamaged", checkpointId, reason: `${checkpointId} is damaged` }),
        );
      }
      case "StartStep": {
        const { generation, step, members, isReplay } = effect;
        entries.push({
          type: "started",
          generation,
          step,
          incarnations: members.map((member) => member.incarnation),
          isReplay,
          collections: this.collectionsOf(effect.experienceIds),
        });
        const ends = members.map(({ incarnation }) => incarnation);
        const { scenario } = this.world;
        const isSharded = scenario.isSharded && scenario.rounds === null && !this.brokenLinks.among(ends);
        for (const member of members) this.send(member.workerId, { ...effect, isSharded });
        return this.world.scenario.rounds === null ? this.reduction.open(effect) : this.rounds.start(effect);
      }
      case "CommitStep":
        entries.push({
          type: "committed",
          generation: effect.generation,
          step: effect.step,
          hash: effect.hash,
          durable: records.length,
        });
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
        entries.push({ type: "stopped", code: effect.code, diagnosis: effect.diagnosis });
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
