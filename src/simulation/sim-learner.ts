/** A simulated learner: computes its shards, votes, applies what is committed. */
import type { HealLearner, LearnerPosition, StartStep } from "../coordinator/core/index.js";
import { updatesOf, type RoundUpdate } from "../coordinator/round-manifest.js";
import { SimPeerSum } from "./sim-peer-sum.js";
import { SimProcess, type ToWorker } from "./sim-process.js";
import { SimStateCopy } from "./sim-state-copy.js";
import { applyGradient, hashOf, idsOfShards, localStep, shardGradient, weighted } from "./toy-model.js";
import type { World } from "./world.js";

const COMPUTE_MS = 10;
/** Of a round: most of a learner's time, so that faults find it there. */
const LOCAL_STEP_MS = 40;
const RESEND_MS = 120;
const RESTART_MS = 300;

/** Its own optimizer steps of a round. */
interface LocalTraining {
  readonly updates: readonly RoundUpdate[];
  readonly contents: ReadonlyMap<string, number>;
  parameters: number;
  done: number;
  /** Sum of its shares of the minibatches it trained. */
  minibatches: number;
  isStopped: boolean;
  isOver: boolean;
}

export class SimLearner extends SimProcess {
  private stage = "";
  step = -1;
  parameters = 0;
  private computing: StartStep | null = null;
  private contribution: readonly number[] | null = null;
  private local: LocalTraining | null = null;
  /** The update it voted for. */
  private prepared: { generation: number; step: number; parameters: number; isFinite: boolean } | null = null;
  /** The same when it lost the coordinator before it heard the decision. */
  private voted: { step: number; parameters: number } | null = null;
  private lastGeneration = 0;
  readonly peerSum: SimPeerSum;
  /** What it computes never comes, until another process takes its place. */
  private isHung = false;
  readonly stateCopy: SimStateCopy;

  constructor(world: World, workerId: string) {
    super(world, workerId, "learner");
    this.peerSum = new SimPeerSum(world, this);
    this.stateCopy = new SimStateCopy(world, this);
  }

  hang(): void {
    this.isHung = this.isAlive;
  }

  /** A process whose computation does not return ends when it is put out; its supervisor starts another. */
  protected override fenced(): void {
    if (!this.isHung) return super.fenced();
    this.kill(false);
    this.world.scheduler.after(RESTART_MS, () => {
      if (!this.isAlive) this.start();
    });
  }

  protected reset(): void {
    this.isHung = false;
    this.stage = "";
    this.step = -1;
    this.lastGeneration = 0;
    this.prepared = null;
    this.detached();
    this.voted = null;
    this.every(RESEND_MS, () => this.resend());
  }

  protected detached(): void {
    this.stateCopy.detached();
    this.computing = null;
    this.contribution = null;
    this.peerSum.close();
    this.local = null;
    if (this.prepared?.isFinite) this.voted = this.prepared;
    this.prepared = null;
  }

  protected position(): LearnerPosition | null {
    const { stage, step, parameters, voted } = this;
    if (step < 0) return null;
    // The journal cannot tell the history of a state when rounds may come out differently.
    const isKnown = step > 0 && this.world.scenario.rounds === null;
    return {
      stage,
      step,
      hash: isKnown ? hashOf(parameters) : "",
      voted: voted && { step: voted.step, hash: hashOf(voted.parameters) },
    };
  }

  protected heldPolicy(): number {
    return -1;
  }

  protected heartbeat(): void {
    this.signed((me) => ({ type: "WorkerHeartbeat", ...me, appliedStep: this.step }));
  }

  corrupt(): void {
    this.parameters ^= 4;
  }

  protected handle(message: ToWorker): void {
    switch (message.type) {
      case "StartStep":
        return this.startStep(message);
      case "BatchContents":
        if (message.generation !== this.computing?.generation) return;
        if (this.world.scenario.rounds === null) this.compute(this.computing, message.contents);
        else this.train(this.computing, message.contents);
        return;
      case "StopTraining":
        if (message.generation === this.computing?.generation && this.local !== null)
          this.local.isStopped = true;
        return;
      case "Average":
        return this.average(message.generation, message.weight);
      case "Reduced":
        return this.receiveSum(message.generation, message.step, message.gradient, message.isFinite);
      case "CommitStep":
        return this.commit(message.generation, message.step);
      case "SkipStep":
        if (message.step !== this.step + 1 || this.stateCopy.isUnderWay) return;
        this.step = message.step;
        this.forgetStep();
        this.signed((me) => ({ type: "StepApplied", ...me, stage: this.stage, step: this.step }));
        return;
      case "AbortStep":
        if (this.computing?.generation === message.generation) this.forgetStep();
        return;
      case "HealLearner":
        if (message.incarnation !== this.incarnation || !this.stateCopy.take(message)) return;
        if (message.source.kind === "vote") return this.applyVoted(message);
        this.step = -1;
        this.voted = null;
        this.forgetStep();
        this.stateCopy.begin(message);
        return;
      case "ReadParameters":
        if (message.step === this.step) {
          const { workerId, step, parameters } = this;
          this.toCoordinator((coordinator) => coordinator.receiveParameters(step, parameters, workerId));
        }
        return;
      default:
    }
  }

  private startStep(message: StartStep & { readonly isSharded?: boolean }): void {
    const me = message.members.find((member) => member.workerId === this.workerId);
    if (
      me?.incarnation !== this.incarnation ||
      message.generation <= this.lastGeneration ||
      this.stateCopy.isUnderWay
    )
      return;
    this.lastGeneration = message.generation;
    this.forgetStep();
    if (message.step !== this.step + 1 || message.stage !== this.stage) {
      this.signed((sign) => ({
        type: "LearnerBehind",
        ...sign,
        generation: message.generation,
        appliedStep: this.step,
      }));
      return;
    }
    this.voted = null;
    this.computing = message;
    if (message.isSharded) this.peerSum.open(message);
    this.fetchBatch(message);
  }

  private fetchBatch(message: StartStep): void {
    this.toCoordinator((coordinator) =>
      coordinator.sendContents(this.workerId, message.generation, message.experienceIds),
    );
  }

  private compute(message: StartStep, contents: readonly number[]): void {
    if (this.contribution !== null) return;
    this.later(COMPUTE_MS * this.slowness, () => {
      if (this.computing !== message || this.isHung) return;
      const me = message.members.find((member) => member.workerId === this.workerId)!;
      this.contribution = Array.from({ length: me.shardCount }, (_, i) =>
        shardGradient(this.parameters, message.step, contents, me.firstShard + i, message.shardCount),
      );
      this.contribute();
    });
  }

  /** Optimizer steps of its own, one after the other; what they make is kept apart from the shared parameters. */
  private train(message: StartStep, contents: readonly number[]): void {
    if (this.local !== null) return;
    this.local = {
      updates: updatesOf(message),
      contents: new Map(message.experienceIds.map((id, i) => [id, contents[i]])),
      parameters: this.parameters,
      done: 0,
      minibatches: 0,
      isStopped: false,
      isOver: false,
    };
    this.trainNext(message, this.local);
  }

  private trainNext(message: StartStep, local: LocalTraining): void {
    const isFirst = local.done === 0;
    if (local.done === local.updates.length || (local.isStopped && !isFirst)) {
      local.isOver = true;
      return this.reportTrained();
    }
    this.later(LOCAL_STEP_MS * this.slowness, () => {
      if (this.local !== local || this.isHung) return;
      const { generation, step, shardCount } = message;
      const { scenario, history } = this.world;
      if (scenario.nonFiniteSteps.includes(step) && (scenario.seed + step) % 2 === 0) {
        this.prepared = { generation, step, parameters: this.parameters, isFinite: false };
        return this.vote();
      }
      const me = message.members.find((member) => member.workerId === this.workerId)!;
      const { experienceIds, optimizerStep } = local.updates[local.done];
      const contents = experienceIds.map((id) => local.contents.get(id)!);
      local.parameters = localStep(local.parameters, optimizerStep, contents, me, shardCount);
      local.minibatches += me.shardCount / shardCount;
      history.entries.push({
        type: "part",
        workerId: this.workerId,
        incarnation: me.incarnation,
        generation,
        step,
        optimizerStep,
        index: local.done,
        firstShard: me.firstShard,
        shardCount: me.shardCount,
        experienceIds: idsOfShards(experienceIds, me, shardCount),
        start: this.parameters,
      });
      local.done += 1;
      this.trainNext(message, local);
    });
  }

  private reportTrained(): void {
    const { computing, local, workerId } = this;
    if (computing === null || local === null) return;
    const { generation, step } = computing;
    this.signed((me) => ({ type: "StepComputed", ...me, generation, step }));
    this.toCoordinator((coordinator) =>
      coordinator.receiveTrained(workerId, generation, step, local.minibatches),
    );
  }

  private average(generation: number, weight: number): void {
    const { local } = this;
    if (this.computing?.generation !== generation || !local?.isOver || this.contribution !== null) return;
    this.contribution = weight > 0 ? [weighted(local.parameters, weight)] : [];
    this.contribute();
  }

  private contribute(): void {
    const { computing, contribution, workerId, incarnation } = this;
    if (computing === null || contribution === null || incarnation === null) return;
    const { generation, step } = computing;
    this.signed((me) => ({ type: "StepComputed", ...me, generation, step }));
    if (this.peerSum.isOpen) return this.peerSum.contribute(contribution);
    this.toCoordinator((coordinator) =>
      coordinator.receiveContribution(
        workerId,
        incarnation,
        computing.generation,
        computing.step,
        contribution,
      ),
    );
  }

  /** A peer cannot be reached; the coordinator decides what becomes of the step. */
  reportBrokenLink(generation: number, step: number, otherId: string): void {
    const { workerId } = this;
    this.toCoordinator((coordinator) => coordinator.receiveBrokenLink(workerId, otherId, generation, step));
  }

  receiveSum(generation: number, step: number, gradient: number, isFinite: boolean): void {
    if (this.computing?.generation !== generation || this.computing.step !== step || this.prepared !== null)
      return;
    this.prepared = { generation, step, parameters: applyGradient(this.parameters, gradient), isFinite };
    this.vote();
  }

  private vote(): void {
    const { prepared } = this;
    if (prepared === null || this.incarnation === null) return;
    const { generation, step, isFinite } = prepared;
    const hash = isFinite ? hashOf(prepared.parameters) : "nan";
    const { workerId, incarnation } = this;
    this.world.history.entries.push({
      type: "voted",
      workerId,
      incarnation,
      generation,
      step,
      isFinite,
      hash,
    });
    this.signed((me) => ({ type: "StepVote", ...me, generation, step, isFinite, hash }));
  }

  private commit(generation: number, step: number): void {
    if (this.prepared?.generation !== generation || this.prepared.step !== step || step !== this.step + 1)
      return;
    this.parameters = this.prepared.parameters;
    this.step = step;
    this.forgetStep();
    this.world.history.entries.push({
      type: "applied",
      workerId: this.workerId,
      generation,
      step,
      hash: hashOf(this.parameters),
    });
    this.signed((me) => ({ type: "StepApplied", ...me, stage: this.stage, step }));
  }

  private forgetStep(): void {
    this.computing = null;
    this.contribution = null;
    this.peerSum.close();
    this.local = null;
    this.prepared = null;
  }

  private resend(): void {
    if (this.prepared !== null) this.vote();
    else if (this.contribution !== null) this.contribute();
    else if (this.local?.isOver) this.reportTrained();
    else if (this.computing !== null && this.local === null) this.fetchBatch(this.computing);
  }

  private applyVoted(order: HealLearner): void {
    const { voted } = this;
    this.voted = null;
    this.forgetStep();
    if (voted?.step === order.step && this.step === order.step - 1)
      return this.stateCopy.healed(order, voted.parameters);
    this.step = -1;
    this.stateCopy.fail("holds no such vote");
  }

  /** Its state is now the one that was asked for. */
  adopt({ stage, step }: HealLearner, parameters: number): void {
    this.parameters = parameters;
    this.stage = stage;
    this.step = step;
  }

  holds({ stage, step }: HealLearner): boolean {
    return this.stage === stage && this.step === step;
  }
}
