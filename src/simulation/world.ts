/** Everything of one simulated run: processes, network, stores that outlive processes, and the faults. */
import type { CoreConfig } from "../coordinator/core/index.js";
import { makeHistory, type History } from "./history.js";
import { Network } from "./network.js";
import type { Planted } from "./planted.js";
import { Random } from "./random.js";
import { FAULTS_END_MS, RUN_LIMIT_MS, type Fault, type Scenario } from "./scenario.js";
import { Scheduler } from "./scheduler.js";
import { coreConfig } from "./sim-config.js";
import { SimCoordinator } from "./sim-coordinator.js";
import { SimJournal } from "./sim-journal.js";
import { SimLearner } from "./sim-learner.js";
import type { SimProcess, ToWorker } from "./sim-process.js";
import { SimRollout } from "./sim-rollout.js";

export class World {
  readonly scheduler = new Scheduler();
  readonly random: Random;
  readonly network: Network;
  readonly history: History = makeHistory();
  readonly config: CoreConfig;
  readonly journal: SimJournal;
  /** The one that directs the run; one that it replaced may still be there. */
  coordinator: SimCoordinator;
  readonly rollouts: SimRollout[];
  readonly learners: SimLearner[];
  /** Durable outside the journal: checkpoint and published weights. */
  readonly checkpoints = new Map<string, number>();
  readonly weights = new Map<number, number>();
  /** Checkpoints that cannot be read any more. */
  readonly damaged = new Set<string>();
  /** What learners agreed to be after a step; a round that is done again may come out differently. */
  private readonly committed = new Map<number, Set<string>>();
  /** Wall clock minus true time; only a planted bug reads the wall clock. */
  wallOffsetMs = 0;
  private lastSignMs = 0;
  private readonly processes = new Map<string, SimProcess>();
  private readonly poison: ReadonlySet<string>;
  private readonly nonFinite: ReadonlySet<string>;

  constructor(
    readonly scenario: Scenario,
    readonly planted: Planted,
  ) {
    this.random = new Random(scenario.seed + 1);
    this.network = new Network(this.scheduler, this.random, scenario.network);
    this.config = coreConfig(scenario);
    this.poison = new Set(scenario.poisonIds);
    this.nonFinite = new Set(scenario.nonFiniteIds);
    this.journal = new SimJournal(this);
    this.coordinator = new SimCoordinator(this);
    this.rollouts = Array.from({ length: scenario.rollouts }, (_, i) => new SimRollout(this, `rollout-${i}`));
    this.learners = Array.from({ length: scenario.learners }, (_, i) => new SimLearner(this, `learner-${i}`));
    for (const process of [...this.rollouts, ...this.learners]) this.processes.set(process.workerId, process);
  }

  run(): History {
    this.coordinator.start();
    for (const process of this.processes.values()) {
      const lateMs = process.workerId === "learner-1" ? (this.scenario.rounds?.lateMs ?? 0) : 0;
      this.scheduler.after(this.random.between(0, 50) + lateMs, () => process.start());
    }
    for (const fault of this.scenario.faults) this.scheduler.after(fault.atMs, () => this.inject(fault));
    const isOver = (): boolean => this.history.isFinished || this.coordinator.isStopped;
    this.scheduler.run(RUN_LIMIT_MS, isOver);
    this.noteSign();
    this.history.endedAtMs = this.scheduler.nowMs;
    return this.history;
  }

  noteCommitted(step: number, hash: string): void {
    if (!this.committed.has(step)) this.committed.set(step, new Set());
    this.committed.get(step)!.add(hash);
  }

  wasCommitted(step: number, hash: string): boolean {
    return this.committed.get(step)?.has(hash) ?? false;
  }

  isPoison(experienceId: string): boolean {
    return this.poison.size > 0 && this.poison.has(experienceId);
  }

  isNonFinite(experienceId: string): boolean {
    return this.nonFinite.size > 0 && this.nonFinite.has(experienceId);
  }

  deliver(workerId: string, message: ToWorker, from: SimCoordinator): void {
    this.processes.get(workerId)?.receive(message, from);
  }

  private inject(fault: Fault): void {
    const rollout = this.rollouts[fault.target % this.rollouts.length];
    const learner = this.learners[fault.target % this.learners.length];
    switch (fault.kind) {
      case "killRollout":
        return this.restart(rollout, fault);
      case "killLearner":
        return this.restart(learner, fault);
      case "killCoordinator":
        return this.coordinator.killAt(fault.point, fault.durationMs);
      case "killAll":
        for (const process of this.processes.values()) this.restart(process, fault);
        return this.coordinator.killAt("now", fault.durationMs);
      case "failJournal":
        return this.journal.failNext(fault.point === "afterSync" ? "kept" : "lost");
      case "pauseCoordinator":
        return this.pauseCoordinator(fault.durationMs);
      case "pauseRollout":
        return this.pause(rollout, fault);
      case "pauseLearner":
        return this.pause(learner, fault);
      case "partitionRollout":
      case "partitionLearner": {
        const { workerId } = fault.kind === "partitionRollout" ? rollout : learner;
        const direction = fault.point === "in" || fault.point === "out" ? fault.point : "now";
        return this.network.cut(workerId, direction, fault.durationMs);
      }
      case "slowRollout":
        return this.slow(rollout, fault);
      case "slowLearner":
        return this.slow(learner, fault);
      case "crawlLearner":
        return this.slow(learner, fault, CRAWL);
      case "hangLearner":
        return this.hang(learner, fault);
      case "cutLearners": {
        const other = this.learners[(fault.target + 1) % this.learners.length];
        return this.network.cutPair(learner.workerId, other.workerId, fault.durationMs);
      }
      case "drainRollout":
        return rollout.drain();
      case "drainLearner":
        return learner.drain();
      case "rollLearners":
        return this.learners.forEach((one, i) =>
          this.scheduler.after(i * fault.durationMs, () => one.drain()),
        );
      case "clockJump":
        this.wallOffsetMs += (fault.target % 2 === 0 ? 1 : -1) * 3_600_000;
        return;
      case "corruptLearner":
        return this.corrupt(learner);
      default:
        fault.kind satisfies never;
    }
  }

  /** Another takes over when it is silent for too long, and it may wake up beside that one. */
  private pauseCoordinator(durationMs: number): void {
    const { coordinator } = this;
    coordinator.pause();
    this.scheduler.after(durationMs, () => coordinator.resume());
    this.scheduler.after(TAKE_OVER_MS, () => {
      if (this.coordinator !== coordinator || !coordinator.isPaused) return;
      this.coordinator = new SimCoordinator(this);
      this.coordinator.start();
    });
  }

  /** Somebody heard of something that happened. */
  noteSign(): void {
    const { history, scheduler } = this;
    history.longestSilenceMs = Math.max(history.longestSilenceMs, scheduler.nowMs - this.lastSignMs);
    this.lastSignMs = scheduler.nowMs;
  }

  /** Only while others stand at the same step: a damaged state that nobody can compare is nobody's to notice. */
  private corrupt(learner: SimLearner): void {
    const hasWitness = learner.step > 0 && this.learners.every((other) => other.step === learner.step);
    if (hasWitness) learner.corrupt();
    else this.scheduler.after(20, () => this.corrupt(learner));
  }

  private restart(process: SimProcess, fault: Fault): void {
    process.kill(fault.target % 3 !== 0);
    this.scheduler.after(fault.durationMs, () => {
      if (!process.isAlive) process.start();
    });
  }

  private pause(process: SimProcess, fault: Fault): void {
    process.pause();
    this.scheduler.after(fault.durationMs, () => process.resume());
  }

  /** With others that go on it is for the coordinator to notice; a lone one is restarted by whoever looks after the run. */
  private hang(learner: SimLearner, fault: Fault): void {
    learner.hang();
    if (this.learners.length === 1)
      this.scheduler.after(fault.durationMs, () => this.restart(learner, fault));
  }

  private slow(process: SimProcess, fault: Fault, slowness = 20): void {
    process.slowness = slowness;
    this.scheduler.after(Math.min(fault.durationMs, FAULTS_END_MS), () => (process.slowness = 1));
  }
}

const TAKE_OVER_MS = 600;
/** Times as slow: a computation takes longer than an attempt at a step. */
const CRAWL = 150;
