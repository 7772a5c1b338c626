/**
 * The bulk path from learner to learner: every member is the reducer of a part, and needs the totals of all of them. Whoever
 * does not answer is reported to the coordinator, as the product's learners do, by those who cannot reach it.
 */
import type { StartStep } from "../coordinator/core/index.js";
import type { SimLearner } from "./sim-learner.js";
import { reduceShards } from "./toy-model.js";
import type { World } from "./world.js";

/** Without a sign of life from another process; a stopped one still has a kernel that accepts connections. */
const LINK_MS = 500;

interface OpenSum {
  readonly start: StartStep;
  /** Of every rank, as this reducer got them. */
  readonly gradients: (readonly number[] | null)[];
  /** This reducer's total. */
  total: number | null;
  /** Reducers whose totals are here. */
  readonly totals: Set<string>;
  readonly heardAtMs: Map<string, number>;
}

export class SimPeerSum {
  private sum: OpenSum | null = null;

  constructor(
    private readonly world: World,
    private readonly owner: SimLearner,
  ) {}

  open(start: StartStep): void {
    const gradients = start.members.map(() => null);
    this.sum = { start, gradients, total: null, totals: new Set(), heardAtMs: new Map() };
  }

  get isOpen(): boolean {
    return this.sum !== null;
  }

  close(): void {
    this.sum = null;
  }

  /** Sends what this learner has computed to every reducer whose total it lacks; again until all are there. */
  contribute(own: readonly number[]): void {
    const { sum, owner, world } = this;
    if (sum === null) return;
    const { nowMs } = world.scheduler;
    const { generation, step, members } = sum.start;
    for (const { workerId } of members) {
      if (sum.totals.has(workerId)) continue;
      const heardAtMs = sum.heardAtMs.get(workerId) ?? nowMs;
      sum.heardAtMs.set(workerId, heardAtMs);
      if (workerId !== owner.workerId && nowMs - heardAtMs > LINK_MS)
        owner.reportBrokenLink(generation, step, workerId);
      const reducer = world.learners.find((learner) => learner.workerId === workerId);
      this.to(workerId, () => reducer?.peerSum.receive(owner, generation, own));
    }
  }

  private receive(from: SimLearner, generation: number, gradients: readonly number[]): void {
    const { sum, owner } = this;
    if (!owner.isAlive) return;
    this.to(from.workerId, () => from.peerSum.noteAlive(owner.workerId, generation));
    if (owner.isPaused || sum?.start.generation !== generation) return;
    const { members } = sum.start;
    const rank = members.findIndex(({ workerId }) => workerId === from.workerId);
    if (rank < 0) return;
    sum.gradients[rank] ??= gradients;
    if (sum.total === null) {
      if (sum.gradients.some((part) => part === null)) return;
      sum.total = reduceShards(sum.gradients.flatMap((part) => part ?? []));
      for (const { workerId } of members) this.sendTotal(sum.total, generation, workerId);
    } else this.sendTotal(sum.total, generation, from.workerId);
  }

  private sendTotal(total: number, generation: number, workerId: string): void {
    const member = this.world.learners.find((learner) => learner.workerId === workerId);
    this.to(workerId, () => member?.peerSum.receiveTotal(this.owner.workerId, generation, total));
  }

  private receiveTotal(reducerId: string, generation: number, total: number): void {
    const { sum, owner, world } = this;
    if (!owner.isAlive || owner.isPaused || sum?.start.generation !== generation) return;
    const { members, step } = sum.start;
    sum.totals.add(reducerId);
    if (sum.totals.size < members.length) return;
    const isFinite = !world.scenario.nonFiniteSteps.includes(step);
    owner.receiveSum(generation, step, total, isFinite);
  }

  private noteAlive(workerId: string, generation: number): void {
    const { sum } = this;
    if (sum?.start.generation === generation) sum.heardAtMs.set(workerId, this.world.scheduler.nowMs);
  }

  private to(workerId: string, deliver: () => void): void {
    if (workerId === this.owner.workerId) this.world.scheduler.after(1, deliver);
    else this.world.network.amongPeers(this.owner.workerId, workerId, deliver);
  }
}
