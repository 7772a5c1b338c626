/**
 * The learners as one: the stages ask for a step, an evaluation, a publication; which processes do it, what happens
 * when one dies, and when a step counts is decided by the core and carried out here.
 */
import type { Logger } from "../observability/logger.js";
import type { Metrics } from "../observability/metrics.js";
import { float64Column } from "../rpc/codec/columns.js";
import { toShard, type MicroShard } from "../rpc/codec/shard.js";
import type { ArtifactRef__Output } from "../rpc/generated/troupe/v1/ArtifactRef.js";
import type { LearnerDirective } from "../rpc/generated/troupe/v1/LearnerDirective.js";
import type { LearnerMessage__Output } from "../rpc/generated/troupe/v1/LearnerMessage.js";
import type { LearnerServiceHandlers } from "../rpc/generated/troupe/v1/LearnerService.js";
import type { ModelRef } from "../rpc/generated/troupe/v1/ModelRef.js";
import type { TokenizerInfo } from "../rpc/generated/troupe/v1/TokenizerInfo.js";
import { toServiceError } from "../rpc/status.js";
import { abortable, makeDeferred, sleep, type Deferred } from "../shared/abort.js";
import { TroupeError, describeError, protocolError } from "../shared/errors.js";
import type { BulkServer } from "../reduce/bulk-server.js";
import type { Config } from "../config/schema.js";
import { AllReduceService } from "./all-reduce-service.js";
import type { JsonValue, StartStep, StepMember } from "./core/index.js";
import type { ArtifactStore } from "./artifact-store.js";
import type { CoreHost } from "./core-host.js";
import { ParameterRounds } from "./parameter-rounds.js";
import { checkSender, checkSpeaksAs } from "./membership-service.js";
import { LearnerHealer } from "./learner-healer.js";
import { LearnerRequests } from "./learner-requests.js";
import { StepVotes, type VoteTotals } from "./step-votes.js";
import { STREAM_PATIENCE_MS, StreamRegistry, isOpen } from "./stream-registry.js";
import type { WorkerDirectory } from "./worker-directory.js";

const READY_POLL_MS = 20;

/** A minibatch, cut into the fixed micro-shards. */
export interface StepInputs {
  readonly shards: readonly MicroShard[];
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
  /** Rebuilds a step's minibatch from its manifest; called again, with the same result, when a step is repeated. */
  readonly materialize: (
    experienceIds: readonly string[],
    input: JsonValue,
    step: number,
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

export interface LearnerGroupOptions {
  readonly host: CoreHost;
  readonly directory: WorkerDirectory;
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
  readonly artifacts: ArtifactStore;
}

export class LearnerGroup {
  private readonly streams = new StreamRegistry<LearnerDirective>();
  private readonly allReduce: AllReduceService;
  /** Of learners that take connections of others. */
  private readonly bulkAddresses = new Map<string, { readonly host: string; readonly port: number }>();
  private readonly requests = new LearnerRequests(this.streams);
  private readonly healer: LearnerHealer;
  private setup: StageSetup | undefined;
  /** Asked for before the stage had put its models together: after a restart the core knows the open stage first. */
  private earlyStep: StartStep | undefined;
  private inputs: { readonly step: number; readonly value: Promise<StepInputs> } | undefined;
  private readonly votes = new StepVotes();
  /** Of a run that averages parameters. */
  private readonly rounds: ParameterRounds | undefined;
  private waiting: { readonly step: number; readonly done: Deferred<StepResult> } | undefined;
  /** Gradient norms before clipping of the last applied step, by model role. */
  gradientNorms: Readonly<Record<string, number>> = {};

  constructor(private readonly options: LearnerGroupOptions) {
    const { host, metrics, logger, artifacts } = options;
    const { streams, requests } = this;
    this.healer = new LearnerHealer({
      host,
      logger,
      artifacts,
      streams,
      requests,
      fail: (error) => this.fail(error),
    });
    this.allReduce = new AllReduceService({
      runId: options.runId,
      wire: options.cluster.wire,
      bucketTimeoutMs: options.cluster.bucketTimeoutMs,
      bulk: options.bulk,
      isEncrypted: options.isEncrypted,
      topology: options.cluster.allReduce,
      bulkAddressOf: (workerId) => this.bulkAddresses.get(workerId),
      metrics,
      onFailed: (failure) => host.dispatch({ type: "ReduceFailed", ...failure }),
    });
    const { sync, roundPatience, stepTimeoutMs } = options.cluster;
    if (sync === "parameters") {
      this.rounds = new ParameterRounds({
        patience: roundPatience,
        answerLimitMs: stepTimeoutMs,
        dispatch: (event) => host.dispatch(event),
        logger,
        streams,
        openSum: (...about) => void this.allReduce.open(...about, "call"),
      });
    }
    host.on("LeaveRound", (effect) => this.rounds?.leave(effect));
    host.on("AverageRound", (effect) => this.rounds?.average(effect));
    host.on("StartStep", (effect) => void this.startStep(effect).catch((error: unknown) => this.fail(error)));
    host.on("CommitStep", ({ generation, step, members }) => {
      for (const { workerId } of members)
        this.streams.send(workerId, { commit: { generation, step, apply: true } });
    });
    host.on("SkipStep", ({ generation, step, members, reason }) => {
      metrics.skippedSteps.inc({ reason });
      for (const { workerId } of members)
        this.streams.send(workerId, { commit: { generation, step, apply: false } });
    });
    host.on("AbortStep", ({ generation, step, members, reason }) => {
      logger.warn({ generation, step, reason }, "optimizer step given up, it will be done again");
      metrics.allreduceAborts.inc({ reason });
      if (this.earlyStep?.generation === generation) this.earlyStep = undefined;
      this.rounds?.close();
      this.allReduce.close(reason);
      for (const { workerId } of members)
        this.streams.send(workerId, { abort: { generation, step, reason } });
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
    host.on("HealLearner", (effect) => void this.healer.heal(effect));
    host.on("PauseLearning", ({ readyLearners, minLearners }) =>
      logger.warn(
        `training is paused: ${readyLearners} learners ready, ${minLearners} needed; it goes on when they are back`,
      ),
    );
    host.on("ResumeLearning", ({ readyLearners }) =>
      logger.info(`training goes on with ${readyLearners} learners`),
    );
    host.on("ReleaseWorker", ({ workerId, incarnation }) => {
      if (this.streams.end(workerId, incarnation)) this.requests.forget(workerId);
    });
    host.on("FenceWorker", ({ workerId, incarnation, reason }) => {
      if (this.streams.end(workerId, incarnation, reason)) this.requests.forget(workerId);
    });
  }

  /** Learners join the stage as they register; steps start once enough of them stand at the same place. */
  startStage(setup: StageSetup): void {
    this.setup = setup;
    this.inputs = undefined;
    this.options.host.dispatch({ type: "StageStarted", stage: setup.stage });
    this.healer.enter(setup);
    const { earlyStep } = this;
    this.earlyStep = undefined;
    if (earlyStep?.stage === setup.stage)
      void this.startStep(earlyStep).catch((error: unknown) => this.fail(error));
  }

  finishStage(stage: string): void {
    this.options.host.dispatch({ type: "StageFinished", stage });
    this.setup = undefined;
    this.healer.enter(undefined);
  }

  /** Minibatches that make one step: 1, or the most of a round. */
  get minibatchesPerStep(): number {
    const { sync, syncEvery } = this.options.cluster;
    return sync === "parameters" ? syncEvery : 1;
  }

  get averagesParameters(): boolean {
    return this.rounds !== undefined;
  }

  /** One optimizer step over all learners; resolves when it is durable: committed, or skipped for a non-finite gradient. */
  async step(request: StepRequest, signal: AbortSignal): Promise<StepResult> {
    const stage = this.currentSetup().stage;
    const done = makeDeferred<StepResult>();
    this.waiting = { step: request.step, done };
    try {
      this.options.host.dispatch({ type: "StepRequested", stage, ...request });
      return await abortable(done.promise, signal);
    } finally {
      this.waiting = undefined;
    }
  }

  /** Forward passes over held-out rows, shared among the learners. @returns sums per row, in row order, by quantity */
  async evaluate(shards: readonly MicroShard[], signal: AbortSignal): Promise<Record<string, Float64Array>> {
    const results = new Array<Record<string, Float64Array> | undefined>(shards.length);
    const open = shards.map((_, i) => i);
    const run = async (workerId: string) => {
      for (let i = open.shift(); i !== undefined; i = open.shift()) {
        try {
          const { evaluated } = await this.requests.ask(
            workerId,
            { evaluate: { shards: [toShard(shards[i])] } },
            signal,
          );
          if (!evaluated) throw protocolError("expected EvaluateDone");
          results[i] = Object.fromEntries(
            Object.entries(evaluated.rows).map(([name, bytes]) => [name, float64Column(bytes, name)]),
          );
        } catch (error) {
          open.unshift(i);
          if (error instanceof TroupeError && error.code !== "UNREACHABLE") throw error;
          return; // this learner is gone; the others take the rest
        }
      }
    };
    while (open.length > 0) {
      const learners = await this.readyLearners(signal);
      await Promise.all(learners.map(run));
    }
    return concatenate(results as Record<string, Float64Array>[]);
  }

  /** Asks one learner to write models or state as artifacts; another one if it dies meanwhile. */
  async publish(
    items: readonly { what: string; artifactName: string }[],
    signal: AbortSignal,
  ): Promise<{ artifacts: ArtifactRef__Output[]; stateSha256: string }> {
    for (;;) {
      const [workerId] = await this.readyLearners(signal);
      try {
        const { published } = await this.requests.ask(workerId, { publish: { items: [...items] } }, signal);
        if (!published) throw protocolError("expected PublishDone");
        return { artifacts: published.artifacts, stateSha256: published.stateSha256 };
      } catch (error) {
        if (!(error instanceof TroupeError) || error.code !== "UNREACHABLE") throw error;
      }
    }
  }

  readonly service: LearnerServiceHandlers = {
    AllReduce: (call) => this.allReduce.handle(call),
    Perform: (call) => {
      const { host, runId, directory, logger } = this.options;
      call.on("data", (message: LearnerMessage__Output) => {
        if (!isOpen(call)) return; // replaced, released or refused
        try {
          const sender = checkSender(message.sender, runId);
          checkSpeaksAs(["learner"], sender, host);
          const { workerId, incarnation } = sender;
          if (message.hello) {
            this.streams.bind(workerId, incarnation, call);
            const { bulkPort } = message.hello;
            if (bulkPort === 0) this.bulkAddresses.delete(workerId);
            else this.bulkAddresses.set(workerId, { host: hostOf(call.getPeer()), port: bulkPort });
          }
          this.receive(message, { workerId, incarnation });
        } catch (error) {
          logger.warn({ error: describeError(error) }, "learner stream refused");
          call.emit("error", toServiceError(error));
        }
      });
      const gone = () => {
        const who = this.streams.drop(call as never);
        if (who === undefined) return;
        this.requests.forget(who.workerId);
        directory.lost(who.workerId, who.incarnation, "connection lost");
        host.dispatch({ type: "WorkerDisconnected", ...who });
      };
      call.on("end", () => call.end());
      call.on("cancelled", gone);
      call.on("close", gone);
      call.on("error", gone);
    },
  };

  private receive(message: LearnerMessage__Output, from: { workerId: string; incarnation: number }): void {
    const { host, logger } = this.options;
    if (this.requests.settle(message, from.workerId)) return;
    if (message.vote) {
      const { generation, step, isFinite, gradientHash } = message.vote;
      this.votes.add(message.vote);
      host.dispatch({
        type: "StepVote",
        ...from,
        generation,
        step,
        isFinite,
        hash: gradientHash.toString(16).padStart(8, "0"),
      });
    } else if (message.trained) {
      this.rounds?.finish(from.workerId, message.trained);
    } else if (message.applied) {
      if (Object.keys(message.applied.gradientNorms).length > 0)
        this.gradientNorms = message.applied.gradientNorms;
      host.dispatch({
        type: "StepApplied",
        ...from,
        stage: message.applied.stage,
        step: message.applied.step,
      });
    } else if (message.behind) {
      host.dispatch({ type: "LearnerBehind", ...from, ...message.behind });
    } else if (message.draining) {
      host.dispatch({ type: "WorkerDraining", ...from });
    } else if (message.failure) {
      logger.error({ worker_id: from.workerId, code: message.failure.errorCode }, message.failure.message);
      const { active } = this;
      if (active)
        host.dispatch({
          type: "ReduceFailed",
          ...active,
          workerId: message.failure.suspectWorkerId || from.workerId,
          reason: message.failure.message,
        });
    }
  }

  private active: { readonly generation: number; readonly step: number } | undefined;

  private async startStep(effect: StartStep): Promise<void> {
    const { setup } = this;
    const { generation, step, members, shardCount } = effect;
    if (setup === undefined) {
      this.earlyStep = effect;
      return;
    }
    this.active = { generation, step };
    this.votes.open(generation, shardCount);
    if (this.rounds !== undefined) return this.rounds.start(effect, setup);
    const exchange = this.allReduce.open(generation, step, shardCount, members);
    if (this.inputs?.step !== step)
      this.inputs = { step, value: setup.materialize(effect.experienceIds, effect.input, step) };
    const { shards, denominator, ptxDenominator, learningRates } = await this.inputs.value;
    const begin = async (member: StepMember) => {
      const { workerId, incarnation } = member;
      const isBound = await this.streams.whenBound(workerId, incarnation, STREAM_PATIENCE_MS);
      if (this.active?.generation !== generation) return; // given up meanwhile
      const mine = shards.slice(member.firstShard, member.firstShard + member.shardCount);
      const isSent = this.streams.send(workerId, {
        train: {
          generation,
          step,
          stage: effect.stage,
          firstShard: member.firstShard,
          shards: mine.map(toShard),
          shardCount,
          memberCount: members.length,
          denominator,
          ptxDenominator,
          learningRates: { ...learningRates },
          ...(exchange === undefined ? {} : { exchange }),
        },
      });
      if (isBound && isSent) return;
      const reason = `${workerId} registered but opened no stream`;
      this.options.host.dispatch({ type: "ReduceFailed", generation, step, workerId, reason });
    };
    await Promise.all(members.map(begin));
  }

  /** Learners that hold the state after the last finished step, have been told so, and can be reached. */
  private async readyLearners(signal: AbortSignal): Promise<string[]> {
    const { host } = this.options;
    for (;;) {
      // Until then a commit may be decided but not sent yet, and what is asked now would overtake it.
      await abortable(host.settled(), signal);
      const { durable, volatile } = host.state;
      const learners = [...volatile.members.values()].filter(
        ({ role, state, step, heal, workerId, incarnation }) =>
          role === "learner" &&
          state === "ready" &&
          heal === null &&
          step === durable.finishedStep &&
          this.streams.isBound(workerId, incarnation),
      );
      if (learners.length > 0 && volatile.activeStep === null)
        return learners.map(({ workerId }) => workerId).sort();
      await abortable(sleep(READY_POLL_MS, signal), signal);
    }
  }

  private fail(error: unknown): void {
    this.waiting?.done.reject(error);
    this.onFatal(error);
  }

  /** Called when the run cannot go on; set by the run. */
  onFatal: (error: unknown) => void = () => undefined;

  private currentSetup(): StageSetup {
    if (this.setup === undefined) throw new TroupeError("INTERNAL", "no stage is open");
    return this.setup;
  }
}

function concatenate(parts: readonly Record<string, Float64Array>[]): Record<string, Float64Array> {
  const names = new Set(parts.flatMap((part) => Object.keys(part)));
  return Object.fromEntries(
    [...names].map((name) => {
      const columns = parts.map((part) => part[name]);
      const all = new Float64Array(columns.reduce((total, column) => total + column.length, 0));
      let offset = 0;
      for (const column of columns) {
        all.set(column, offset);
        offset += column.length;
      }
      return [name, all];
    }),
  );
}

/** "10.0.0.7:41234" → "10.0.0.7", "[::1]:41234" → "::1" */
const hostOf = (peer: string): string => peer.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
