/**
 * The coordinator's side of a round of parameter averaging: hands every member its rows of every minibatch, waits until
 * they have trained (./round-barrier), then opens the sum and tells each its weight. What becomes of the round is decided
 * by the core (core/rounds.ts, core/steps.ts).
 */
import type { LearnerDirective } from "../rpc/generated/troupe/v1/LearnerDirective.js";
import type { AverageRound, CoordinatorEvent, LeaveRound, StartStep, StepMember } from "./core/index.js";
import { shareShards } from "./core/index.js";
import type { Logger } from "../observability/logger.js";
import type { StageSetup } from "./optimizer-steps.js";
import { deliverMinibatch, type Delivery } from "./minibatch-delivery.js";
import { leavesOf, RoundBarrier, type RoundBarrierOptions } from "./round-barrier.js";
import { leftOutOf, updatesOf, type RoundPart } from "./round-manifest.js";
import { protocolError } from "../shared/errors.js";
import { STREAM_PATIENCE_MS, type StreamRegistry } from "./stream-registry.js";
import type { StreamPeer } from "./worker-stream.js";

export interface ParameterRoundsOptions extends RoundBarrierOptions {
  readonly dispatch: (event: CoordinatorEvent) => void;
  readonly logger: Logger;
  readonly streams: StreamRegistry<LearnerDirective>;
  readonly pieceBytes?: number;
  /** Opens the bulk path: each member may send what lies in its range of the tree. */
  readonly openSum: (
    generation: number,
    step: number,
    shardCount: number,
    members: readonly StepMember[],
  ) => void;
}

interface OpenRound {
  readonly generation: number;
  readonly step: number;
  /** By workerId, of its members. */
  readonly incarnations: ReadonlyMap<string, number>;
  readonly barrier: RoundBarrier;
  readonly parts: RoundPart[];
  timer: NodeJS.Timeout | undefined;
}

export class ParameterRounds {
  private round: OpenRound | undefined;
  /** Minibatches that were trained in the last round that was averaged; a part of one counts as a part. */
  trainedMinibatches = 0;

  constructor(private readonly options: ParameterRoundsOptions) {}

  /** Sends every member its part of the round. */
  async start(effect: StartStep, setup: StageSetup): Promise<void> {
    this.close();
    const { generation, step, stage, members } = effect;
    const { streams, dispatch, pieceBytes } = this.options;
    const workerIds = members.map(({ workerId }) => workerId);
    const round: OpenRound = {
      generation,
      step,
      incarnations: new Map(members.map(({ workerId, incarnation }) => [workerId, incarnation])),
      barrier: new RoundBarrier(workerIds, performance.now(), this.options),
      parts: [],
      timer: undefined,
    };
    this.round = round;
    for (const { workerId, incarnation } of members) {
      if (await streams.whenBound(workerId, incarnation, STREAM_PATIENCE_MS)) continue;
      const reason = `${workerId} registered but opened no stream`;
      if (this.round === round) dispatch({ type: "ReduceFailed", generation, step, workerId, reason });
    }
    const updates = updatesOf(effect);
    /** What each member is still being sent: one that reads slowly keeps nobody waiting. */
    const sending = new Map<string, Promise<void>>();
    const send = (delivery: Delivery) => {
      const { workerId } = delivery;
      const before = sending.get(workerId) ?? Promise.resolve();
      const sent = before.then(async () => void (await deliverMinibatch(streams, delivery)));
      sent.catch(() => undefined); // awaited below
      sending.set(workerId, sent);
    };
    for (const [index, update] of updates.entries()) {
      const { shards, experienceIds, denominator, ptxDenominator, learningRates } = await setup.materialize(
        update.experienceIds,
        update.input,
        update.optimizerStep,
        effect.shardCount,
      );
      if (this.round !== round) return; // given up meanwhile
      for (const { workerId, firstShard, shardCount } of shareShards(members, shards.length)) {
        const own = experienceIds?.slice(firstShard, firstShard + shardCount) ?? [];
        round.parts.push({ workerId, share: shardCount / shards.length, experienceIds: own.flat() });
        send({
          workerId,
          incarnation: round.incarnations.get(workerId) ?? 0,
          train: {
            generation,
            step,
            stage,
            firstShard,
            shardCount: shards.length,
            memberCount: members.length,
            denominator,
            ptxDenominator,
            learningRates: { ...learningRates },
            timeLimitMs: effect.limitMs,
            round: { index, count: updates.length, optimizerStep: update.optimizerStep },
          },
          shards: shards.slice(firstShard, firstShard + shardCount),
          isWanted: () => this.round === round,
          pieceBytes,
        });
      }
    }
    await Promise.all(sending.values());
  }

  /**
   * A member has trained its part, or what it could of it; anybody else's report is ignored.
   * @throws {TroupeError} PROTOCOL for more than the member was given: the weights of the average come from here
   */
  finish(
    { workerId, incarnation }: StreamPeer,
    report: { readonly generation: number; readonly step: number; readonly minibatches: number },
  ): void {
    const { round } = this;
    if (round?.generation !== report.generation || round.step !== report.step) return;
    if (round.incarnations.get(workerId) !== incarnation) return;
    const given = round.parts.reduce((sum, part) => sum + (part.workerId === workerId ? part.share : 0), 0);
    // Both are sums of the same shares, in the same order but for rounding.
    if (!(report.minibatches >= 0 && report.minibatches <= given + 1e-6))
      throw protocolError(
        `RoundTrained.minibatches of ${workerId}: expected 0 to ${given}, got ${report.minibatches}`,
      );
    round.barrier.finish(workerId, report.minibatches);
    this.advance(round);
  }

  leave({ generation, workerId }: LeaveRound): void {
    const { round } = this;
    if (round?.generation !== generation) return;
    this.options.logger.warn({ generation, worker_id: workerId }, "the round goes on without a learner");
    round.barrier.leave(workerId);
    this.advance(round);
  }

  /** The core agrees that the round is trained. */
  average({ generation, step, members, limitMs }: AverageRound): void {
    const { round } = this;
    if (round?.generation !== generation) return;
    clearTimeout(round.timer);
    const { dispatch, streams, openSum } = this.options;
    const trained = members.map(({ workerId }) => round.barrier.finished.get(workerId) ?? 0);
    const total = trained.reduce((sum, minibatches) => sum + minibatches, 0);
    const contributors = members.filter((_, i) => trained[i] > 0);
    if (contributors.length === 0) {
      const reason = "no learner trained a row of the round";
      return dispatch({ type: "ReduceFailed", generation, step, workerId: null, reason });
    }
    this.trainedMinibatches = total;
    const { shardCount, leaves } = leavesOf(contributors.length);
    const nodes = new Map(contributors.map(({ workerId }, i) => [workerId, leaves[i]]));
    const ranges = members.map((member) => {
      const node = nodes.get(member.workerId);
      return node === undefined
        ? { ...member, firstShard: 0, shardCount: 0 }
        : { ...member, firstShard: node.index * 2 ** node.level, shardCount: 2 ** node.level };
    });
    openSum(generation, step, shardCount, ranges);
    for (const [i, { workerId }] of members.entries()) {
      const node = nodes.get(workerId) ?? null;
      const weight = trained[i] / total;
      streams.send(workerId, { average: { generation, step, node, weight, timeLimitMs: limitMs } });
    }
  }

  /** Ends the round, however it went. Idempotent. */
  close(): void {
    clearTimeout(this.round?.timer);
    this.round = undefined;
  }

  private advance(round: OpenRound): void {
    const { dispatch, streams, logger } = this.options;
    const { generation, step, barrier } = round;
    clearTimeout(round.timer);
    const nowMs = performance.now();
    const decision = barrier.decide(nowMs);
    switch (decision.action) {
      case "average":
        return dispatch({
          type: "RoundTrained",
          generation,
          step,
          workerIds: decision.workerIds,
          leftOut: leftOutOf(round.parts, barrier.finished),
        });
      case "stop":
        logger.info({ generation, step, slow: decision.workerIds }, "slow learners end the round early");
        for (const workerId of decision.workerIds) streams.send(workerId, { stop: { generation, step } });
        return this.advance(round);
      case "wait":
        if (decision.untilMs === Infinity) return;
        round.timer = setTimeout(() => this.advance(round), Math.ceil(decision.untilMs - nowMs) + 1);
        round.timer.unref();
    }
  }
}
