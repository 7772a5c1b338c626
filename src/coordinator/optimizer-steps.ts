/**
 * The optimizer step that is under way, as the core orders it: hands every member its micro-shards, gathers the votes,
 * tells commit, skip and abort. Which learners take part and when a step counts is decided by the core.
 */
import type { Config } from "../config/schema.js";
import type { Logger } from "../observability/logger.js";
import type { Metrics } from "../observability/metrics.js";
import type { BulkServer } from "../reduce/bulk-server.js";
import type { MicroShard } from "../rpc/codec/shard.js";
import type { ArtifactRef__Output } from "../rpc/generated/troupe/v1/ArtifactRef.js";
import type { LearnerDirective } from "../rpc/generated/troupe/v1/LearnerDirective.js";
import type { LearnerFailure__Output } from "../rpc/generated/troupe/v1/LearnerFailure.js";
import type { ModelRef } from "../rpc/generated/troupe/v1/ModelRef.js";
import type { RunShape } from "../rpc/generated/troupe/v1/RunShape.js";
import type { RoundTrained__Output } from "../rpc/generated/troupe/v1/RoundTrained.js";
import type { StepApplied__Output } from "../rpc/generated/troupe/v1/StepApplied.js";
import type { StepComputed__Output } from "../rpc/generated/troupe/v1/StepComputed.js";
import type { StepVote__Output } from "../rpc/generated/troupe/v1/StepVote.js";
import type { TokenizerInfo } from "../rpc/generated/troupe/v1/TokenizerInfo.js";
import { abortable, makeDeferred, type Deferred } from "../shared/abort.js";
import { TroupeError, asErrorCode } from "../shared/errors.js";
import { AllReduceService } from "./all-reduce-service.js";
import type { CoreHost } from "./core-host.js";
import type { JsonValue, StartStep, StepMember } from "./core/index.js";
import { deliverMinibatch } from "./minibatch-delivery.js";
import { ParameterRounds } from "./parameter-rounds.js";
import { StepVotes, type VoteTotals } from "./step-votes.js";
import { STREAM_PATIENCE_MS, type StreamRegistry } from "./stream-registry.js";
import type { StreamPeer } from "./worker-stream.js";

/** A minibatch, cut into the fixed micro-shards. */
export interface StepInputs {
  readonly shards: readonly MicroShard[];
  /** Experiences of each shard; left out where rows are no experiences. */
  readonly experienceIds?: readonly (readonly string[])[];
  /** Counted tokens or pairs of the whole minibatch. */
  readonly denominator: number;
  readonly ptxDenominator: number;
  readonly learningRates: Readonly<Record<string, number>>;
}

/** What the learners need to take part in a stage. */
export interface StageSetup {
  readonly stage: string;
  readonly models: readonly ModelRef[];
  readonly tokenizer: TokenizerInfo;
  /** Of program runs; a function of data and config alone, so that a run repeats its bits. */
  readonly runShapes: readonly RunShape[];
  /**
   * Rebuilds a step's minibatch from its manifest; called again, with the same result, when a step is repeated.
   * @param shardCount into how many micro-shards it is cut: the settings may say another number by now
   */
  readonly materialize: (
    experienceIds: readonly string[],
    input: JsonValue,
    step: number,
    shardCount: number,
  ) => Promise<StepInputs>;
  /** Full training state of a checkpoint of this stage. */
  readonly checkpointState: (checkpointId: string) => Promise<ArtifactRef__Output>;
}

export interface StepRequest {
  readonly step: number;
  readonly experienceIds: readonly string[];
  readonly input: JsonValue;
  readonly shardCount: number;
  readonly isFinalUse: boolean;
}

export interface StepResult extends VoteTotals {
  readonly outcome: "committed" | "skipped";
  /** Minibatches that were trained: 1, or those of a round; slow learners may leave out parts of some. */
  readonly minibatches: number;
}

export interface OptimizerStepsOptions {
  readonly host: CoreHost;
  readonly metrics: Metrics<"coordinator">;
  readonly logger: Logger;
  readonly runId: string;
  readonly cluster: Pick<
    Config["cluster"],
    "wire" | "bucketTimeoutMs" | "allReduce" | "sync" | "syncEvery" | "roundPatience" | "stepTimeoutMs"
  >;
  readonly bulk?: BulkServer;
  /** The bulk channel is encrypted. */
  readonly isEncrypted?: boolean;
  readonly streams: StreamRegistry<LearnerDirective>;
  /** Where a learner takes connections of others, if it does. */
  readonly bulkAddressOf: (workerId: string) => { readonly host: string; readonly port: number } | undefined;
  /** Of a message of rows. Default: 1 MiB. */
  readonly pieceBytes?: number;
  /** The run cannot go on. */
  readonly fail: (error: unknown) => void;
}

export class OptimizerSteps {
  readonly allReduce: AllReduceService;
  /** Of a run that averages parameters. */
  private readonly rounds: ParameterRounds | undefined;
  private readonly votes = new StepVotes();
  private setup: StageSetup | undefined;
  /** Asked for before the stage had put its models together: after a restart the core knows the open stage first. */
  private earlyStep: StartStep | undefined;
  private inputs: { readonly step: number; readonly value: Promise<StepInputs> } | undefined;
  private active: Pick<StartStep, "generation" | "step" | "members"> | undefined;
  private waiting: { readonly step: number; readonly done: Deferred<StepResult> } | undefined;
  /** Gradient norms before clipping of the last applied step, by model role. */
  gradientNorms: Readonly<Record<string, number>> = {};

  constructor(private readonly options: OptimizerStepsOptions) {
    const { host, metrics, logger, streams } = options;
    this.allReduce = new AllReduceService({
      runId: options.runId,
      wire: options.cluster.wire,
      bucketTimeoutMs: options.cluster.bucketTimeoutMs,
      bulk: options.bulk,
      isEncrypted: options.isEncrypted,
      topology: options.cluster.allReduce,
      bulkAddressOf: options.bulkAddressOf,
      metrics,
      onFailed: (failure) => host.dispatch({ type: "ReduceFailed", ...failure }),
    });
    const { sync, roundPatience, stepTimeoutMs } = options.cluster;
    if (sync === "parameters") {
      this.rounds = new ParameterRounds({
        patience: roundPatience,
        answerLimitMs: stepTimeoutMs,
        pieceBytes: options.pieceBytes,
        dispatch: (event) => host.dispatch(event),
        logger,
        streams,
        openSum: (...about) => void this.allReduce.open(...about, "call"),
      });
    }
    this.obey();
  }

  /** The stage whose steps are done from now on; undefined between stages. */
  enter(setup: StageSetup | undefined): void {
    this.setup = setup;
    this.inputs = undefined;
    const { earlyStep } = this;
    if (setup === undefined) return;
    this.earlyStep = undefined;
    if (earlyStep?.stage === setup.stage) this.start(earlyStep);
  }

  /** Minibatches that make one step: 1, or the most of a round. */
  get minibatchesPerStep(): number {
    const { sync, syncEvery } = this.options.cluster;
    return sync === "parameters" ? syncEvery : 1;
  }

  get averagesParameters(): boolean {
    return this.rounds !== undefined;
  }

  /** Resolves when the step is durable: committed, or skipped for a non-finite gradient. */
  async request(stage: string, request: StepRequest, signal: AbortSignal): Promise<StepResult> {
    const done = makeDeferred<StepResult>();
    this.waiting = { step: request.step, done };
    try {
      this.options.host.dispatch({ type: "StepRequested", stage, ...request });
      return await abortable(done.promise, signal);
    } finally {
      this.waiting = undefined;
    }
  }

  /** Whoever waits for the step hears this instead. */
  reject(error: unknown): void {
    this.waiting?.done.reject(error);
  }

  receiveVote(vote: StepVote__Output, from: StreamPeer): void {
    const { generation, step, isFinite, digest } = vote;
    // What it says of its micro-shards steers the training as well: only a member's counts.
    if (this.active?.members.some(({ incarnation }) => incarnation === from.incarnation))
      this.votes.add(vote);
    this.options.host.dispatch({ type: "StepVote", ...from, generation, step, isFinite, hash: digest });
  }

  receiveComputed({ generation, step }: StepComputed__Output, from: StreamPeer): void {
    this.options.host.dispatch({ type: "StepComputed", ...from, generation, step });
  }

  receiveTrained(trained: RoundTrained__Output, from: StreamPeer): void {
    this.receiveComputed(trained, from);
    this.rounds?.finish(from, trained);
  }

  receiveApplied({ stage, step, gradientNorms }: StepApplied__Output, from: StreamPeer): void {
    const { members } = this.options.host.state.volatile;
    const isMember = members.get(from.workerId)?.incarnation === from.incarnation;
    if (isMember && Object.keys(gradientNorms).length > 0) this.gradientNorms = gradientNorms;
    this.options.host.dispatch({ type: "StepApplied", ...from, stage, step });
  }

  /** What a learner could not do. Of an attempt that is over it is old news, whoever is to blame. */
  receiveFailure(failure: LearnerFailure__Output, from: StreamPeer): void {
    const { host, logger, metrics } = this.options;
    const { errorCode, message, suspectWorkerId, generation, step, isDecided } = failure;
    const { workerId } = from;
    logger.error({ worker_id: workerId, code: errorCode, generation, step }, message);
    if (isDecided) {
      const code = asErrorCode(errorCode);
      return host.dispatch({ type: "ApplyFailed", ...from, generation, step, code, reason: message });
    }
    if (this.active?.generation !== generation || this.active.step !== step)
      return void metrics.staleFrames.inc();
    const isLink = suspectWorkerId !== "" || errorCode === "UNREACHABLE";
    const hasDetour = isLink && this.allReduce.noteBrokenLink(workerId, suspectWorkerId);
    const blamed = hasDetour || suspectWorkerId !== "" ? null : workerId;
    const reason = hasDetour ? `${message}; from now on the coordinator sums for them` : message;
    host.dispatch({ type: "ReduceFailed", generation, step, workerId: blamed, reason });
  }

  /** Registers what is done about each of the core's orders. */
  private obey(): void {
    const { host, metrics, logger, streams } = this.options;
    host.on("LeaveRound", (effect) => this.rounds?.leave(effect));
    host.on("AverageRound", (effect) => this.rounds?.average(effect));
    host.on("StartStep", (effect) => this.start(effect));
    host.on("CommitStep", ({ generation, step, members }) => {
      for (const { workerId } of members)
        streams.send(workerId, { commit: { generation, step, apply: true } });
    });
    host.on("SkipStep", ({ generation, step, members, reason }) => {
      metrics.skippedSteps.inc({ reason });
      for (const { workerId } of members)
        streams.send(workerId, { commit: { generation, step, apply: false } });
    });
    host.on("AbortStep", ({ generation, step, members, reason, detail }) => {
      logger.warn({ generation, step, reason, detail }, "optimizer step given up, it will be done again");
      metrics.allreduceAborts.inc({ reason });
      if (this.earlyStep?.generation === generation) this.earlyStep = undefined;
      // What is still being packed for it must not follow the word that it is over.
      if (this.active?.generation === generation) this.active = undefined;
      this.rounds?.close();
      this.allReduce.close(reason);
      for (const { workerId } of members) streams.send(workerId, { abort: { generation, step, reason } });
    });
    host.on("StepFinished", ({ step, outcome }) => {
      this.rounds?.close();
      this.allReduce.close("the step is finished");
      const totals = this.votes.take();
      this.active = undefined;
      if (this.waiting?.step === step)
        this.waiting.done.resolve({ outcome, ...totals, minibatches: this.rounds?.trainedMinibatches ?? 1 });
    });
    host.on("StepRefused", ({ step, reason, missing }) => {
      const what =
        missing.length > 0
          ? `${reason}: ${missing.slice(0, 3).join(", ")} (${missing.length} in all)`
          : reason;
      if (this.waiting?.step === step)
        this.waiting.done.reject(new TroupeError("INTERNAL", `optimizer step ${step} refused: ${what}`));
    });
  }

  private start(effect: StartStep): void {
    void this.share(effect).catch((error: unknown) => this.options.fail(error));
  }

  private async share(effect: StartStep): Promise<void> {
    const { setup } = this;
    const { host, logger, streams } = this.options;
    const { generation, step, members, shardCount, isReplay } = effect;
    if (setup === undefined) {
      this.earlyStep = effect;
      return;
    }
    if (isReplay)
      logger.warn(
        { generation, step, stage: effect.stage },
        "committed step computed again: no learner is left that holds its result",
      );
    this.active = effect;
    this.votes.open(generation, shardCount);
    if (this.rounds !== undefined) return this.rounds.start(effect, setup);
    const exchange = this.allReduce.open(generation, step, shardCount, members);
    if (this.inputs?.step !== step)
      this.inputs = { step, value: setup.materialize(effect.experienceIds, effect.input, step, shardCount) };
    const { shards, denominator, ptxDenominator, learningRates } = await this.inputs.value;
    const begin = async (member: StepMember) => {
      const { workerId, incarnation } = member;
      const isBound = await streams.whenBound(workerId, incarnation, STREAM_PATIENCE_MS);
      if (this.active?.generation !== generation) return; // given up meanwhile
      const train = {
        generation,
        step,
        stage: effect.stage,
        firstShard: member.firstShard,
        shardCount,
        memberCount: members.length,
        denominator,
        ptxDenominator,
        learningRates: { ...learningRates },
        timeLimitMs: effect.limitMs,
        ...(exchange === undefined ? {} : { exchange }),
      };
      const isSent = await deliverMinibatch(streams, {
        workerId,
        incarnation,
        train,
        shards: shards.slice(member.firstShard, member.firstShard + member.shardCount),
        isWanted: () => this.active?.generation === generation,
        pieceBytes: this.options.pieceBytes,
      });
      if (this.active?.generation !== generation) return;
      if (isBound && isSent) return;
      const reason = `${workerId} registered but has no open stream`;
      host.dispatch({ type: "ReduceFailed", generation, step, workerId, reason });
    };
    await Promise.all(members.map(begin));
  }
}
