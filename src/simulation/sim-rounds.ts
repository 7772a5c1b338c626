/**
 * The simulated coordinator's side of a round of parameter averaging, with the product's own barrier and manifests: who
 * trains what, when it has trained long enough, what was left out. As the real one it hears of departures only when the
 * core's effects are carried out, which the journal may delay.
 */
import type { AverageRound, LeaveRound, StartStep } from "../coordinator/core/index.js";
import { RoundBarrier } from "../coordinator/round-barrier.js";
import { leftOutOf, updatesOf, type RoundPart } from "../coordinator/round-manifest.js";
import type { SimCoordinator } from "./sim-coordinator.js";
import { idsOfShards } from "./toy-model.js";
import type { World } from "./world.js";

const STOP_AGAIN_MS = 150;
const MIN_PATIENCE_MS = 60;

interface OpenRound {
  readonly generation: number;
  readonly step: number;
  readonly barrier: RoundBarrier;
  readonly parts: RoundPart[];
  /** workerId -> weight, once it is averaged. */
  weights: ReadonlyMap<string, number> | null;
}

export class SimRounds {
  private round: OpenRound | null = null;

  constructor(
    private readonly world: World,
    private readonly coordinator: SimCoordinator,
  ) {}

  /** Of the round under way. */
  get generation(): number | undefined {
    return this.round?.generation;
  }

  start(effect: StartStep): void {
    const { generation, step, members, shardCount } = effect;
    const barrier = new RoundBarrier(
      members.map(({ workerId }) => workerId),
      this.world.scheduler.nowMs,
      {
        patience: this.world.scenario.rounds!.patience,
        minPatienceMs: MIN_PATIENCE_MS,
        answerLimitMs: this.world.config.stepTimeoutMs,
      },
    );
    const parts = updatesOf(effect).flatMap(({ experienceIds }) =>
      members.map((member) => ({
        workerId: member.workerId,
        share: member.shardCount / shardCount,
        experienceIds: idsOfShards(experienceIds, member, shardCount),
      })),
    );
    this.round = { generation, step, barrier, parts, weights: null };
  }

  finish(workerId: string, generation: number, step: number, minibatches: number): void {
    const { round } = this;
    if (round?.generation !== generation || round.step !== step) return;
    if (round.weights !== null) return this.tellWeight(round, workerId);
    round.barrier.finish(workerId, minibatches);
    this.advance(round);
  }

  leave({ generation, workerId }: LeaveRound): void {
    const { round } = this;
    if (round?.generation !== generation) return;
    round.barrier.leave(workerId);
    this.advance(round);
  }

  average({ generation, step, members }: AverageRound): void {
    const { round } = this;
    if (round?.generation !== generation) return;
    const trained = members.map(({ workerId }) => round.barrier.finished.get(workerId) ?? 0);
    const total = trained.reduce((sum, minibatches) => sum + minibatches, 0);
    if (total === 0) {
      const reason = "no learner trained a row of the round";
      return this.coordinator.dispatch({ type: "ReduceFailed", generation, step, workerId: null, reason });
    }
    round.weights = new Map(members.map(({ workerId }, i) => [workerId, trained[i] / total]));
    this.world.history.entries.push({
      type: "averaging",
      generation,
      step,
      members: members.map(({ workerId, incarnation }, i) => ({
        workerId,
        incarnation,
        weight: trained[i] / total,
      })),
    });
    this.coordinator.openSum({ generation, step, members });
    for (const { workerId } of members) this.tellWeight(round, workerId);
  }

  close(): void {
    this.round = null;
  }

  private tellWeight({ generation, weights }: OpenRound, workerId: string): void {
    const weight = weights?.get(workerId);
    if (weight !== undefined) this.coordinator.send(workerId, { type: "Average", generation, weight });
  }

  private advance(round: OpenRound): void {
    if (this.round !== round || round.weights !== null) return;
    const { generation, step, barrier, parts } = round;
    const { nowMs } = this.world.scheduler;
    const decision = barrier.decide(nowMs);
    switch (decision.action) {
      case "average":
        return this.coordinator.dispatch({
          type: "RoundTrained",
          generation,
          step,
          workerIds: decision.workerIds,
          leftOut: leftOutOf(parts, barrier.finished),
        });
      case "stop":
        this.stop(round, decision.workerIds);
        return this.advance(round);
      case "wait":
        if (decision.untilMs !== Infinity)
          this.coordinator.later(decision.untilMs - nowMs + 1, () => this.advance(round));
    }
  }

  /** Again and again: the message may be lost. */
  private stop(round: OpenRound, workerIds: readonly string[]): void {
    const slow = workerIds.filter((workerId) => !round.barrier.finished.has(workerId));
    if (this.round !== round || round.weights !== null || slow.length === 0) return;
    for (const workerId of slow)
      this.coordinator.send(workerId, { type: "StopTraining", generation: round.generation });
    this.coordinator.later(STOP_AGAIN_MS, () => this.stop(round, slow));
  }
}
