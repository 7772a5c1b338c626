/**
 * The optimizer steps of a session, one at a time. A step runs beside the directive loop, because its decision (commit,
 * skip, abort) arrives on the same stream. What comes for a step that is over is old news: counted, else ignored.
 */
import type { MicroShard } from "../rpc/codec/shard.js";
import type { AbortStep__Output } from "../rpc/generated/troupe/v1/AbortStep.js";
import type { AverageParameters__Output } from "../rpc/generated/troupe/v1/AverageParameters.js";
import type { CommitStep__Output } from "../rpc/generated/troupe/v1/CommitStep.js";
import type { LearnerDirective__Output } from "../rpc/generated/troupe/v1/LearnerDirective.js";
import type { LearnerMessage } from "../rpc/generated/troupe/v1/LearnerMessage.js";
import type { TrainStep__Output } from "../rpc/generated/troupe/v1/TrainStep.js";
import type { BulkServer } from "../reduce/bulk-server.js";
import type { ReductionFailure } from "../reduce/reduction.js";
import { makeDeferred, sleep, type Deferred } from "../shared/abort.js";
import { TroupeError, describeError, errorCodeOf, protocolError } from "../shared/errors.js";
import type { Session } from "../worker/coordinator-link.js";
import type { WorkerContext } from "../worker/start-worker.js";
import { BulkExchange } from "./bulk-exchange.js";
import { BUCKET_ELEMENTS, GradientSync, type StepKey } from "./gradient-sync.js";
import type { HeldUpdate, LearnerState } from "./learner-state.js";
import {
  optimizerStep,
  type Decision,
  type StepDependencies,
  type StepOrder,
  type Vote,
} from "./optimizer-step.js";
import { RoundFeed, roundStep, type RoundDependencies } from "./round-step.js";
import { RowAssembly } from "./row-assembly.js";
import { tokensOf } from "./shards.js";

/** Between two looks at a computation that may never return. */
const LOOK_AGAIN_MS = 1_000;

interface RunningStep {
  readonly generation: number;
  readonly step: number;
  readonly decision: Deferred<Decision>;
  readonly abort: AbortController;
  /** Of a round of parameter averaging: what came after its beginning. */
  readonly feed: RoundFeed | undefined;
  /** The decision came: parameters are being changed. */
  isDecided: boolean;
  /** Settles when the step is over, whichever way. */
  readonly finished: Promise<void>;
}

export class TrainSteps {
  private readonly bulk: BulkExchange;
  private readonly sync: GradientSync;
  private readonly rows = new RowAssembly();
  private running: RunningStep | undefined;
  private closingSinceMs: number | undefined;

  /** @param peers where other learners reach this one; undefined when it reduces nothing */
  constructor(
    private readonly state: LearnerState,
    private readonly session: Session,
    private readonly context: WorkerContext<"learner">,
    private readonly send: (message: Omit<LearnerMessage, "sender">) => void,
    peers: BulkServer | undefined,
  ) {
    const { clients, sender, config } = session;
    const { allreduceBytes } = context.metrics;
    const onBytes = (direction: "in" | "out", bytes: number) => allreduceBytes.inc({ direction }, bytes);
    const { wire, bucketTimeoutMs } = config.cluster;
    this.bulk = new BulkExchange(
      {
        ...{ wire, bucketTimeoutMs, onBytes, workerId: sender.workerId ?? "" },
        bucketElements: BUCKET_ELEMENTS,
        coordinatorHost: session.coordinatorHost,
        onFailed: (failure) => this.suspect(failure),
      },
      peers,
    );
    this.sync = new GradientSync(clients, sender, { wire, onBytes }, this.bulk);
  }

  /** @returns once the next directive may be looked at: after a decision, when the step is over */
  async obey(directive: LearnerDirective__Output): Promise<void> {
    if (directive.rows) return this.rows.add(directive.rows);
    if (directive.train) return this.start(directive.train);
    if (directive.commit) return this.commit(directive.commit);
    if (directive.abort) return this.abort(directive.abort);
    if (directive.stop) return this.inRound(directive.stop, (feed) => feed.stop());
    if (directive.average) return this.average(directive.average);
    throw protocolError("LearnerDirective: expected a directive, got none");
  }

  /** Ends the step under way, unless it is decided: then it ends by itself. */
  interrupt(reason: string): void {
    if (this.running?.isDecided === false) this.running.abort.abort(new TroupeError("CANCELLED", reason));
  }

  /** Its computation should have returned long ago. */
  get overdueStep(): number | undefined {
    return this.state.shardGradients.overdueStep(performance.now());
  }

  /**
   * Ends the step under way. Gradients change no parameter and need not be waited for. A round does, until it is rolled
   * back, and so does a step that is decided.
   * @param limitMs from the first call on
   * @param isPatient false: not for a computation that is overdue; the process cannot go on then
   * @returns whether no parameter is being changed any more
   */
  async close(limitMs: number, isPatient = true): Promise<boolean> {
    const { running } = this;
    this.closingSinceMs ??= performance.now();
    this.interrupt("the session ended");
    this.bulk.close();
    if (running?.isDecided !== true && running?.feed === undefined) return true;
    const over = running.finished.then(() => true);
    for (;;) {
      const leftMs = this.closingSinceMs + limitMs - performance.now();
      if (leftMs <= 0 || (!isPatient && this.overdueStep !== undefined)) return false;
      const look = new AbortController();
      const pause = sleep(Math.min(leftMs, LOOK_AGAIN_MS), look.signal).then(() => false);
      const isOver = await Promise.race([over, pause]);
      look.abort();
      if (isOver) return true;
    }
  }

  private async start(message: TrainStep__Output): Promise<void> {
    const { generation, step, stage, round } = message;
    const order = toOrder(message, this.rows.take(message));
    if (round !== null && round.index > 0) {
      const update = { ...order, optimizerStep: round.optimizerStep };
      return this.inRound(message, (feed) => feed.push(update));
    }
    const { running } = this;
    if (running !== undefined && running.generation < generation) this.interrupt("a later generation began");
    await running?.finished;
    const { position } = this.state;
    if (position?.stage !== stage) {
      const message = `step ${step} of ${stage}: this learner was not set up for that stage`;
      return this.send({ failure: { errorCode: "PROTOCOL", message, generation, step } });
    }
    if (position.step + 1 !== step) return this.send({ behind: { generation, appliedStep: position.step } });
    this.state.dropVote();
    const decision = makeDeferred<Decision>();
    const abort = new AbortController();
    if (message.exchange) this.bulk.open({ generation, step }, message.shardCount, message.exchange);
    abort.signal.addEventListener("abort", () => this.bulk.stop("the step was given up"), { once: true });
    abort.signal.addEventListener("abort", () => decision.reject(abort.signal.reason), { once: true });
    const feed = round === null ? undefined : new RoundFeed(round.count);
    const finished = this.perform(message, order, position.digest, decision, feed, abort.signal).finally(
      () => {
        if (this.running?.abort === abort) this.running = undefined;
      },
    );
    this.running = { generation, step, decision, abort, feed, finished, isDecided: false };
  }

  private commit(message: CommitStep__Output): Promise<void> {
    const { step: skipped, apply } = message;
    const { position } = this.state;
    // A skipped step that is repeated is only told: there is nothing to compute.
    if (!apply && this.running === undefined && position?.step === skipped - 1)
      this.state.moveTo({ ...position, step: skipped });
    this.state.dropVote();
    return this.decide(message, (running) => {
      running.isDecided = true;
      running.decision.resolve(apply ? "apply" : "skip");
    });
  }

  private abort(message: AbortStep__Output): Promise<void> {
    this.state.dropVote();
    return this.decide(message, ({ abort }) => abort.abort(new TroupeError("CANCELLED", message.reason)));
  }

  private average(message: AverageParameters__Output): void {
    const { node, weight, timeLimitMs } = message;
    this.inRound(message, (feed) => feed.average.resolve({ node, weight, timeLimitMs }));
  }

  private async decide(about: StepKey, act: (step: RunningStep) => void): Promise<void> {
    const { running } = this;
    if (running?.generation !== about.generation || running.step !== about.step) return this.noteStale();
    act(running);
    await running.finished;
  }

  private inRound(about: StepKey, act: (feed: RoundFeed) => void): void {
    const { running } = this;
    if (running?.feed === undefined || running.generation !== about.generation) return this.noteStale();
    act(running.feed);
  }

  private noteStale(): void {
    this.context.metrics.staleFrames.inc();
  }

  /** Another reducer or a member stayed away: the coordinator decides what becomes of the step. */
  private suspect({ generation, step, workerId, reason }: ReductionFailure): void {
    if (this.running?.generation !== generation || this.running.step !== step) return;
    const suspectWorkerId = workerId ?? "";
    this.send({
      failure: { errorCode: "UNREACHABLE", message: reason, suspectWorkerId, generation, step },
    });
  }

  /** From gradients to the applied update, or to whatever ended the step; never rejects. */
  private async perform(
    message: TrainStep__Output,
    order: StepOrder,
    digest: string,
    decision: Deferred<Decision>,
    feed: RoundFeed | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { generation, step, stage } = message;
    const { logger } = this.context;
    let votedDigest = "";
    let isCommitted = false;
    const vote = async (ballot: Vote, update?: HeldUpdate) => {
      votedDigest = ballot.digest;
      this.cast(ballot, update);
      const decided = await decision.promise;
      isCommitted = decided === "apply";
      return decided;
    };
    const { compute, shardGradients } = this.state;
    const noteComputed = () => this.send({ computed: { generation, step } });
    const dependencies = { compute, shardGradients, sync: this.sync, signal, digest, noteComputed, vote };
    try {
      const gradientNorms = await this.compute(message, order, feed, dependencies);
      // A skipped step leaves everything as it was.
      const isApplied = gradientNorms !== undefined;
      this.state.moveTo({ stage, step, digest: isApplied ? votedDigest : digest });
      this.send({ applied: { stage, step, gradientNorms: gradientNorms ?? {} } });
    } catch (error) {
      if (!isCommitted && (signal.aborted || errorCodeOf(error) === "CANCELLED")) {
        logger.debug({ generation, step, reason: describeError(error) }, "step given up");
        return;
      }
      logger.error({ err: error, generation, step }, "step failed");
      // Part of the update may be in the parameters.
      if (isCommitted) this.state.forget();
      const about = { generation, step, isDecided: isCommitted };
      const text = `step ${step}: ${describeError(error)}`;
      this.send({ failure: { errorCode: errorCodeOf(error), message: text, ...about } });
    }
  }

  private async compute(
    { round }: TrainStep__Output,
    order: StepOrder,
    feed: RoundFeed | undefined,
    dependencies: StepDependencies & Pick<RoundDependencies, "vote">,
  ): Promise<Readonly<Record<string, number>> | undefined> {
    if (feed === undefined || round === null) {
      const gradientNorms = await optimizerStep(order, dependencies);
      this.countTokens(order);
      return gradientNorms;
    }
    feed.push({ ...order, optimizerStep: round.optimizerStep });
    return roundStep(order, {
      ...dependencies,
      feed,
      trained: (update) => {
        this.countTokens(update);
      },
      report: (trained) => this.send({ trained }),
    });
  }

  private cast(vote: Vote, update: HeldUpdate | undefined): void {
    const { step, digest, isFinite, stats } = vote;
    if (update && isFinite) this.state.keepVote({ step, digest }, update);
    const { stepDuration } = this.context.metrics;
    stepDuration.observe({ phase: "compute" }, vote.computeMs / 1000);
    stepDuration.observe({ phase: "allreduce" }, vote.allReduceMs / 1000);
    const { overlapMs = 0, ...told } = vote;
    stepDuration.observe({ phase: "overlap" }, overlapMs / 1000);
    this.send({
      vote: { ...told, stats: stats.map(({ shard, values }) => ({ shard, sums: { ...values } })) },
    });
  }

  private countTokens({ shards }: StepOrder): void {
    for (const { rows } of shards) this.context.metrics.trainedTokens.inc(tokensOf(rows));
  }
}

const toOrder = (message: TrainStep__Output, shards: readonly MicroShard[]): StepOrder => ({
  generation: message.generation,
  step: message.step,
  exchange: message.exchange,
  shards,
  shardCount: message.shardCount,
  denominators: { main: message.denominator, ptx: message.ptxDenominator },
  learningRates: message.learningRates,
  timeLimitMs: message.timeLimitMs,
});
