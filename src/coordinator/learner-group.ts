/**
 * The learners as one: the stages ask for a step, an evaluation, a publication; which processes do it, what happens
 * when one dies, and when a step counts is decided by the core and carried out here.
 */
import type { Config } from "../config/schema.js";
import { float64Column } from "../rpc/codec/columns.js";
import { toShard, type MicroShard } from "../rpc/codec/shard.js";
import type { ArtifactRef__Output } from "../rpc/generated/troupe/v1/ArtifactRef.js";
import type { LearnerDirective } from "../rpc/generated/troupe/v1/LearnerDirective.js";
import type { LearnerMessage__Output } from "../rpc/generated/troupe/v1/LearnerMessage.js";
import type { LearnerServiceHandlers } from "../rpc/generated/troupe/v1/LearnerService.js";
import { LONGEST_TIMER_MS } from "../shared/abort.js";
import { TroupeError, configError, protocolError } from "../shared/errors.js";
import type { ArtifactStore } from "./artifact-store.js";
import { MAX_PATIENCE } from "./core/index.js";
import { LearnerHealer } from "./learner-healer.js";
import { LearnerRequests, type SilentLearner } from "./learner-requests.js";
import {
  OptimizerSteps,
  type OptimizerStepsOptions,
  type StageSetup,
  type StepRequest,
  type StepResult,
} from "./optimizer-steps.js";
import { ReadyLearners } from "./ready-learners.js";
import { StreamRegistry } from "./stream-registry.js";
import type { WorkerDirectory } from "./worker-directory.js";
import { serveWorkerStream } from "./worker-stream.js";

export interface LearnerGroupOptions extends Omit<
  OptimizerStepsOptions,
  "cluster" | "streams" | "bulkAddressOf" | "fail"
> {
  readonly cluster: OptimizerStepsOptions["cluster"] & Pick<Config["cluster"], "healTimeoutMs">;
  readonly directory: WorkerDirectory;
  readonly artifacts: ArtifactStore;
}

export class LearnerGroup {
  private readonly streams = new StreamRegistry<LearnerDirective>();
  /** Of learners that take connections of others. */
  private readonly bulkAddresses = new Map<string, { readonly host: string; readonly port: number }>();
  private readonly requests = new LearnerRequests(this.streams, (silent) => this.giveUp(silent));
  private readonly steps: OptimizerSteps;
  private readonly healer: LearnerHealer;
  private setup: StageSetup | undefined;
  private readonly ready: ReadyLearners;

  constructor(private readonly options: LearnerGroupOptions) {
    const { host, logger, artifacts } = options;
    const { streams, requests } = this;
    this.ready = new ReadyLearners(host, streams);
    const fail = (error: unknown) => this.fail(error);
    this.steps = new OptimizerSteps({
      ...options,
      streams,
      bulkAddressOf: (workerId) => this.bulkAddresses.get(workerId),
      fail,
    });
    const { averagesParameters } = this.steps;
    const limitMs = options.cluster.healTimeoutMs;
    const shared = { host, logger, artifacts, streams, requests };
    this.healer = new LearnerHealer({ ...shared, limitMs, averagesParameters, fail });
    host.on("HealLearner", (effect) => void this.healer.heal(effect));
    host.on("PauseLearning", ({ readyLearners, minLearners }) =>
      logger.warn(
        `training is paused: ${readyLearners} of the ${minLearners} learners needed are ready; it goes on when they are back`,
      ),
    );
    host.on("ResumeLearning", ({ readyLearners }) =>
      logger.info(`training goes on; learners ready: ${readyLearners}`),
    );
    host.on("ReleaseWorker", ({ workerId, incarnation }) => {
      if (this.streams.end(workerId, incarnation)) this.requests.forget(workerId);
    });
    host.on("FenceWorker", (effect) => {
      const { workerId, incarnation } = effect;
      if (this.streams.end(workerId, incarnation, effect)) this.requests.forget(workerId);
    });
  }

  /**
   * Learners join the stage as they register; steps start once enough of them stand at the same place.
   * @throws {TroupeError} CONFIG when the stage's finished steps are of another size than those to come
   */
  startStage(setup: StageSetup): void {
    const { host } = this.options;
    const { minibatchesPerStep } = this;
    const { stage, minibatchesPerStep: before } = host.state.durable;
    if (stage === setup.stage && before !== null && before !== minibatchesPerStep)
      throw configError(
        `cluster.sync, cluster.syncEvery: stage ${stage} was begun with ${before} minibatches to a step, now a step has ${minibatchesPerStep}; how far it has come is counted in steps, so finish the stage with the former settings`,
      );
    this.setup = setup;
    host.dispatch({ type: "StageStarted", stage: setup.stage, minibatchesPerStep });
    this.healer.enter(setup);
    this.steps.enter(setup);
  }

  finishStage(stage: string): void {
    this.options.host.dispatch({ type: "StageFinished", stage });
    this.setup = undefined;
    this.healer.enter(undefined);
    this.steps.enter(undefined);
  }

  get minibatchesPerStep(): number {
    return this.steps.minibatchesPerStep;
  }

  get averagesParameters(): boolean {
    return this.steps.averagesParameters;
  }

  /** Before clipping, of the last applied step, by model role. */
  get gradientNorms(): Readonly<Record<string, number>> {
    return this.steps.gradientNorms;
  }

  /** One optimizer step over all learners; resolves when it is durable: committed, or skipped for a non-finite gradient. */
  async step(request: StepRequest, signal: AbortSignal): Promise<StepResult> {
    return this.steps.request(this.currentSetup().stage, request, signal);
  }

  /**
   * Forward passes over held-out rows, shared among the learners. One that takes longer for a micro-shard than for a step
   * is given up; what nobody was in time for gets twice the time.
   * @returns sums per row, in row order, by quantity
   */
  async evaluate(shards: readonly MicroShard[], signal: AbortSignal): Promise<Record<string, Float64Array>> {
    const { stepTimeoutMs } = this.options.cluster;
    const results = new Array<Record<string, Float64Array> | undefined>(shards.length);
    const open = shards.map((_, i) => i);
    const run = async (workerId: string, limitMs: number) => {
      for (let i = open.shift(); i !== undefined; i = open.shift()) {
        try {
          const { evaluated } = await this.requests.ask(
            workerId,
            { evaluate: { shards: [toShard(shards[i])] } },
            { limitMs, signal },
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
    for (let patience = 1; open.length > 0; patience = Math.min(2 * patience, MAX_PATIENCE)) {
      const learners = await this.ready.wait(signal);
      const limitMs = Math.min(patience * stepTimeoutMs, LONGEST_TIMER_MS);
      await Promise.all(learners.map((workerId) => run(workerId, limitMs)));
    }
    return concatenate(results as Record<string, Float64Array>[]);
  }

  /**
   * Asks one learner to write models or state as artifacts; another one if it dies or is stuck meanwhile. `stateSha256` is empty
   * unless it is wanted: it takes a pass over parameters and optimizer state. Before the whole training
   * state is kept all learners fingerprint theirs, and the one that wrote it must be among those that agree.
   */
  async publish(
    items: readonly { what: string; artifactName: string }[],
    signal: AbortSignal,
    { isFingerprinted = true }: { readonly isFingerprinted?: boolean } = {},
  ): Promise<{ artifacts: ArtifactRef__Output[]; stateSha256: string }> {
    const isKept = items.some(({ what }) => what === "state");
    const fingerprint = isKept || isFingerprinted;
    const handoverDir = await this.options.artifacts.handoverDir();
    const limitMs = this.options.cluster.healTimeoutMs;
    for (let isAgain = false; ; isAgain = true) {
      const learners = await this.ready.wait(signal);
      // What a learner published that does not count must not keep the right one from its name.
      if (isAgain) for (const { artifactName } of items) await this.options.artifacts.remove(artifactName);
      const { finishedStep: step } = this.options.host.state.durable;
      const asked = isKept ? learners : learners.slice(0, 1);
      const answers = await Promise.allSettled(
        asked.map((workerId, i) =>
          this.requests.ask(
            workerId,
            { publish: { items: i === 0 ? [...items] : [], fingerprint, handoverDir } },
            { limitMs, signal },
          ),
        ),
      );
      const [first] = answers;
      if (first.status === "rejected") {
        const { reason } = first;
        if (reason instanceof TroupeError && reason.code === "UNREACHABLE") continue;
        throw reason;
      }
      const states = answers.flatMap((answer, i) =>
        answer.status === "fulfilled" && answer.value.published
          ? [{ workerId: asked[i], sha256: answer.value.published.stateSha256 }]
          : [],
      );
      if (!first.value.published) throw protocolError("expected PublishDone");
      const { artifacts, stateSha256 } = first.value.published;
      if (states.every(({ sha256 }) => sha256 === stateSha256)) return { artifacts, stateSha256 };
      this.reportDifference(step, states);
    }
  }

  /** The core decides who is healed, or that the run must end. */
  private reportDifference(step: number, states: readonly { workerId: string; sha256: string }[]): void {
    const { host, logger, metrics } = this.options;
    metrics.stateMismatches.inc();
    logger.error({ step, states }, "learners hold different states after the same steps");
    host.dispatch({ type: "StatesDiffer", step, states });
  }

  readonly service: LearnerServiceHandlers = {
    AllReduce: (call) => this.steps.allReduce.handle(call),
    Perform: (call) => {
      const { streams, requests } = this;
      const onGone = (workerId: string) => requests.forget(workerId);
      serveWorkerStream(call, { ...this.options, role: "learner", streams, onGone }, (message, from) => {
        const { workerId, incarnation } = from;
        if (message.hello) {
          streams.bind(workerId, incarnation, call);
          const { bulkPort } = message.hello;
          if (bulkPort === 0) this.bulkAddresses.delete(workerId);
          else this.bulkAddresses.set(workerId, { host: hostOf(call.getPeer()), port: bulkPort });
        }
        this.receive(message, from);
      });
    },
  };

  private receive(message: LearnerMessage__Output, from: { workerId: string; incarnation: number }): void {
    const { host } = this.options;
    if (this.requests.settle(message, from)) return;
    if (message.vote) this.steps.receiveVote(message.vote, from);
    else if (message.computed) this.steps.receiveComputed(message.computed, from);
    else if (message.trained) this.steps.receiveTrained(message.trained, from);
    else if (message.applied) this.steps.receiveApplied(message.applied, from);
    else if (message.failure) this.steps.receiveFailure(message.failure, from);
    else if (message.behind) host.dispatch({ type: "LearnerBehind", ...from, ...message.behind });
    else if (message.draining) host.dispatch({ type: "WorkerDraining", ...from });
  }

  /** It is connected and does nothing: others do without it, and it may join again. */
  private giveUp(silent: SilentLearner): void {
    const { host, logger } = this.options;
    logger.warn({ worker_id: silent.workerId }, `learner is given up: ${silent.reason}`);
    host.dispatch({ type: "LearnerSilent", ...silent });
  }

  private fail(error: unknown): void {
    this.steps.reject(error);
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
