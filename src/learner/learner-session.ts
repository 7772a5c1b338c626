/**
 * One registration of a learner: a directive stream from the coordinator, answered in order. A train step runs beside
 * the directive loop, because its decision (commit, skip, abort) arrives on the same stream.
 */
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { join } from "node:path";
import type { ClientDuplexStream } from "@grpc/grpc-js";
import type { WorkerContext } from "../worker/start-worker.js";
import { ArtifactClient } from "../worker/artifact-client.js";
import type { ComputePool } from "../worker/compute-pool.js";
import type { Clients, Holdings, Session } from "../worker/coordinator-link.js";
import { toColumn } from "../rpc/codec/columns.js";
import { fromShard, type ShardRows } from "../rpc/codec/shard.js";
import { handoverName } from "../rpc/handover.js";
import type { ArtifactRef__Output } from "../rpc/generated/troupe/v1/ArtifactRef.js";
import type { ApplyVoted__Output } from "../rpc/generated/troupe/v1/ApplyVoted.js";
import type { Evaluate__Output } from "../rpc/generated/troupe/v1/Evaluate.js";
import type { LearnerDirective__Output } from "../rpc/generated/troupe/v1/LearnerDirective.js";
import type { LearnerMessage } from "../rpc/generated/troupe/v1/LearnerMessage.js";
import type { PublishState__Output } from "../rpc/generated/troupe/v1/PublishState.js";
import type { SetupStage__Output } from "../rpc/generated/troupe/v1/SetupStage.js";
import type { TrainStep__Output } from "../rpc/generated/troupe/v1/TrainStep.js";
import { makeDeferred, type Deferred } from "../shared/abort.js";
import { TroupeError, describeError, errorCodeOf, protocolError } from "../shared/errors.js";
import { BulkServer } from "../reduce/bulk-server.js";
import { isLoopback } from "../rpc/auth.js";
import { splitAddress } from "../rpc/tls.js";
import { BulkExchange } from "./bulk-exchange.js";
import { BUCKET_ELEMENTS, GradientSync } from "./gradient-sync.js";
import {
  optimizerStep,
  type Decision,
  type StepOrder,
  type Vote,
  type VotedUpdate,
} from "./optimizer-step.js";
import { RoundFeed, roundStep } from "./round-step.js";
import { stageSettings } from "./stage-settings.js";
import { initialDigest } from "./state-digest.js";
import type * as learnerThread from "./learner-thread.js";

/** Lives as long as the process, over reconnects. */
export interface LearnerState {
  readonly compute: ComputePool<typeof learnerThread>;
  readonly scratchDir: string;
  /** Where the parameters stand; null until the first stage is set up. */
  position: { stage: string; step: number; digest: string } | null;
  /**
   * The update of the next step, from its vote until its decision is heard; kept over reconnects, because the decision
   * may have been made while nobody could tell it.
   */
  voted: { readonly about: { step: number; digest: string }; readonly update: VotedUpdate } | null;
}

/** What a learner tells of itself when it registers. */
export function learnerHoldings({ position, voted }: LearnerState): Holdings {
  return { position: position && { ...position, voted: voted?.about ?? null } };
}

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

export class LearnerSession {
  private readonly artifacts: ArtifactClient;
  private readonly sync: GradientSync;
  private readonly bulk: BulkExchange;
  private readonly call: ClientDuplexStream<LearnerMessage, LearnerDirective__Output>;
  private running: RunningStep | undefined;
  private readonly noteStale: () => void;

  private constructor(
    private readonly state: LearnerState,
    private readonly session: Session,
    private readonly context: WorkerContext<"learner">,
    /** Where other learners reach this one, when learners sum among themselves. */
    private readonly bulkServer: BulkServer | undefined,
  ) {
    const { clients, sender, config } = session;
    this.artifacts = new ArtifactClient(clients, sender);
    const { allreduceBytes, staleFrames } = context.metrics;
    const onBytes = (direction: "in" | "out", bytes: number) => allreduceBytes.inc({ direction }, bytes);
    const { wire, stepTimeoutMs, bucketTimeoutMs } = config.cluster;
    this.bulk = new BulkExchange(
      {
        ...{ wire, bucketTimeoutMs, onBytes, workerId: sender.workerId ?? "" },
        bucketElements: BUCKET_ELEMENTS,
        coordinatorHost: hostOf(clients),
        onFailed: ({ generation, step, workerId, reason }) => {
          if (this.running?.generation !== generation || this.running.step !== step) return;
          const failure = { errorCode: "UNREACHABLE", message: reason, suspectWorkerId: workerId ?? "" };
          this.send({ failure });
        },
      },
      bulkServer,
    );
    this.sync = new GradientSync(clients, sender, { wire, timeoutMs: stepTimeoutMs, onBytes }, this.bulk);
    this.noteStale = () => staleFrames.inc();
    this.call = clients.learner.perform() as ClientDuplexStream<LearnerMessage, LearnerDirective__Output>;
  }

  /** Opens what a session needs and cannot be opened at once. */
  static async start(
    state: LearnerState,
    session: Session,
    context: WorkerContext<"learner">,
  ): Promise<LearnerSession> {
    const { allReduce, bulkChannel, tls } = session.config.cluster;
    // Of peers on this host one address is known to be open to all of them.
    const isAmongNeighbours = bulkChannel !== "off" && hostOf(session.clients).startsWith("127.");
    const server =
      allReduce === "sharded" || (allReduce === "auto" && isAmongNeighbours)
        ? await BulkServer.listen({
            host: isLoopback(hostOf(session.clients)) ? "127.0.0.1" : "::",
            port: 0,
            isEncrypted: tls.cert !== null,
          })
        : undefined;
    return new LearnerSession(state, session, context, server);
  }

  async run(): Promise<void> {
    const { call, session } = this;
    // The loop below reports errors; one that comes after it ended (the cancel in `finally`) is old news.
    call.on("error", () => undefined);
    const closed = new Promise<void>((resolve) => call.once("close", resolve));
    const askToLeave = () => this.send({ draining: {} });
    const cancel = () => call.cancel();
    session.draining.addEventListener("abort", askToLeave, { once: true });
    session.signal.addEventListener("abort", cancel, { once: true });
    try {
      this.send({ hello: { bulkPort: this.bulkServer?.port ?? 0 } });
      if (session.draining.aborted) askToLeave();
      for await (const directive of call as AsyncIterable<LearnerDirective__Output>) {
        const done = this.obey(directive);
        // What only reads parameters need not be waited for when nobody is left to hear its result: whoever holds the
        // newest state must say so soon.
        await (directive.evaluate || directive.publish ? Promise.race([done, closed]) : done);
      }
    } finally {
      const { running } = this;
      running?.abort.abort();
      // Nor gradients, which change no parameter. A round does, until it is rolled back.
      if (running?.isDecided === true || running?.feed !== undefined) await running.finished;
      session.draining.removeEventListener("abort", askToLeave);
      session.signal.removeEventListener("abort", cancel);
      call.cancel();
      this.bulk.close();
      await this.artifacts.close();
    }
  }

  private send(message: Omit<LearnerMessage, "sender">): void {
    this.call.write({ sender: this.session.sender, ...message });
  }

  private async obey(directive: LearnerDirective__Output): Promise<void> {
    const { requestId } = directive;
    const answer = async (work: Promise<Omit<LearnerMessage, "sender" | "requestId">>) => {
      try {
        this.send({ requestId, ...(await work) });
      } catch (error) {
        this.context.logger.error({ err: error }, "directive failed");
        this.send({ requestId, failure: { errorCode: errorCodeOf(error), message: describeError(error) } });
      }
      this.session.noteProgress();
    };
    if (directive.setup) return answer(this.setup(directive.setup));
    if (directive.evaluate) return answer(this.evaluate(directive.evaluate));
    if (directive.publish) return answer(this.publish(directive.publish));
    if (directive.applyVoted) return answer(this.applyVoted(directive.applyVoted));
    if (directive.train) return this.startStep(directive.train);
    if (directive.commit) {
      const { step: skipped, apply } = directive.commit;
      const { position } = this.state;
      // A skipped step that is repeated is only told: there is nothing to compute.
      if (!apply && this.running === undefined && position?.step === skipped - 1)
        this.state.position = { ...position, step: skipped };
      this.state.voted = null;
      return this.decide(directive.commit, (step) => {
        step.isDecided = true;
        step.decision.resolve(apply ? "apply" : "skip");
      });
    }
    if (directive.abort) {
      const { reason } = directive.abort;
      this.state.voted = null;
      return this.decide(directive.abort, (step) => step.abort.abort(new TroupeError("CANCELLED", reason)));
    }
    if (directive.stop) return this.inRound(directive.stop, (feed) => feed.stop());
    if (directive.average) {
      const { node, weight } = directive.average;
      return this.inRound(directive.average, (feed) => feed.average.resolve({ node, weight }));
    }
    throw protocolError("LearnerDirective: expected a directive, got none");
  }

  private async setup(message: SetupStage__Output): Promise<Omit<LearnerMessage, "sender">> {
    this.state.position = null;
    this.state.voted = null;
    const startedMs = performance.now();
    const settings = stageSettings(message, this.session.config);
    const models = await Promise.all(
      message.models.map(async (model) => ({
        role: model.role,
        hfConfigJson: model.hfConfigJson,
        head: model.head as "lm" | "scalar",
        file: model.parameters === null ? null : await this.artifacts.fetch(model.parameters),
        initSeed: model.initSeed,
      })),
    );
    const { parameterCount } = await this.state.compute.run("configure", { ...settings, models });
    const { stage, appliedStep } = message;
    let digest = initialDigest(stage);
    if (message.state !== null) {
      const loaded = await this.state.compute.run("loadState", await this.artifacts.fetch(message.state));
      digest = loaded.digest;
      await this.artifacts.forget(message.state.sha256);
    }
    this.state.position = { stage, step: appliedStep, digest };
    this.context.metrics.weightTransferDuration.observe((performance.now() - startedMs) / 1000);
    this.context.logger.info(
      { stage, applied_step: appliedStep, parameters: parameterCount },
      "stage set up",
    );
    return { setupDone: { healId: message.healId, appliedStep, parameterCount, digest } };
  }

  /** The commit that this learner could not hear. */
  private async applyVoted(message: ApplyVoted__Output): Promise<Omit<LearnerMessage, "sender">> {
    const { position, voted, compute } = this.state;
    const { stage, step, digest, healId } = message;
    if (position?.stage !== stage || voted?.about.step !== step || voted.about.digest !== digest)
      throw protocolError(`step ${step} of ${stage}: this learner holds no update it voted for`);
    this.state.voted = null;
    this.state.position = null;
    const { gradients, learningRates } = voted.update;
    await compute.run("applyGradients", { gradients, learningRates, optimizerStep: step }, [gradients]);
    this.state.position = { stage, step, digest };
    this.context.logger.info({ stage, step }, "committed step applied late, from its vote");
    return { setupDone: { healId, appliedStep: step, digest } };
  }

  /** A decision about a step this learner no longer works on is old news. */
  private async decide(
    about: { generation: number; step: number },
    act: (step: RunningStep) => void,
  ): Promise<void> {
    const { running } = this;
    if (running?.generation !== about.generation || running.step !== about.step) return this.noteStale();
    act(running);
    await running.finished;
  }

  /** Something for the round under way; like a decision, it may be old news. */
  private inRound(about: { generation: number; step: number }, act: (feed: RoundFeed) => void): void {
    const { running } = this;
    if (running?.feed === undefined || running.generation !== about.generation) return this.noteStale();
    act(running.feed);
  }

  private async startStep(message: TrainStep__Output): Promise<void> {
    const { generation, step, stage, round } = message;
    if (round !== null && round.index > 0) {
      const update = { ...orderOf(message), optimizerStep: round.optimizerStep };
      return this.inRound(message, (feed) => feed.push(update));
    }
    await this.running?.finished;
    const { position } = this.state;
    if (position?.stage !== stage) {
      const message = `step ${step} of ${stage}: this learner was not set up for that stage`;
      this.send({ failure: { errorCode: "PROTOCOL", message } });
      return;
    }
    if (position.step + 1 !== step) {
      this.send({ behind: { generation, appliedStep: position.step } });
      return;
    }
    this.state.voted = null;
    const decision = makeDeferred<Decision>();
    const abort = new AbortController();
    if (message.exchange) this.bulk.open({ generation, step }, message.shardCount, message.exchange);
    abort.signal.addEventListener("abort", () => this.bulk.stop("the step was given up"), { once: true });
    abort.signal.addEventListener("abort", () => decision.reject(abort.signal.reason), { once: true });
    const feed = round === null ? undefined : new RoundFeed(round.count);
    const finished = this.runStep(message, position.digest, decision, feed, abort.signal).finally(() => {
      if (this.running?.abort === abort) this.running = undefined;
    });
    this.running = { generation, step, decision, abort, feed, finished, isDecided: false };
  }

  private async runStep(
    message: TrainStep__Output,
    digest: string,
    decision: Deferred<Decision>,
    feed: RoundFeed | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const { generation, step, stage } = message;
    const { metrics, logger } = this.context;
    const countTokens = ({ shards }: Pick<StepOrder, "shards">) => {
      for (const { rows } of shards) metrics.trainedTokens.inc(tokensOf(rows));
    };
    let votedDigest = "";
    const dependencies = {
      compute: this.state.compute,
      sync: this.sync,
      signal,
      digest,
      vote: (vote: Vote, update?: VotedUpdate) => {
        votedDigest = vote.digest;
        if (update && vote.isFinite) this.state.voted = { about: { step, digest: vote.digest }, update };
        metrics.stepDuration.observe({ phase: "compute" }, vote.computeMs / 1000);
        metrics.stepDuration.observe({ phase: "allreduce" }, vote.allReduceMs / 1000);
        this.send({
          vote: { ...vote, stats: vote.stats.map(({ shard, values }) => ({ shard, sums: { ...values } })) },
        });
        return decision.promise;
      },
    };
    try {
      const order = orderOf(message);
      let gradientNorms: Record<string, number> | undefined;
      if (feed === undefined || message.round === null) {
        gradientNorms = await optimizerStep(order, dependencies);
        countTokens(order);
      } else {
        feed.push({ ...order, optimizerStep: message.round.optimizerStep });
        gradientNorms = await roundStep(order, {
          ...dependencies,
          feed,
          trained: (update) => {
            countTokens(update);
            this.session.noteProgress();
          },
          report: (trained) => this.send({ trained }),
        });
      }
      // A skipped step leaves everything as it was.
      const isApplied = gradientNorms !== undefined;
      this.state.position = { stage, step, digest: isApplied ? votedDigest : digest };
      this.send({ applied: { stage, step, gradientNorms: gradientNorms ?? {} } });
      this.session.noteProgress();
    } catch (error) {
      if (signal.aborted || errorCodeOf(error) === "CANCELLED") {
        logger.debug({ generation, step, reason: describeError(error) }, "step given up");
        return;
      }
      logger.error({ err: error, generation, step }, "step failed");
      this.send({
        failure: { errorCode: errorCodeOf(error), message: `step ${step}: ${describeError(error)}` },
      });
    }
  }

  private async evaluate(message: Evaluate__Output): Promise<Omit<LearnerMessage, "sender">> {
    const rows: Record<string, Buffer> = {};
    for (const shard of message.shards) {
      const sums = await this.state.compute.run("evaluate", { rows: fromShard(shard).rows });
      for (const [name, values] of Object.entries<Float64Array>(sums)) {
        rows[name] = Buffer.concat([rows[name] ?? Buffer.alloc(0), toColumn(values)]);
      }
    }
    return { evaluated: { rows } };
  }

  private async publish(message: PublishState__Output): Promise<Omit<LearnerMessage, "sender">> {
    const { compute, scratchDir } = this.state;
    const uploads: Promise<ArtifactRef__Output>[] = [];
    const isOpen = message.handoverDir !== "" && (await isWritable(message.handoverDir));
    for (const { what, artifactName } of message.items) {
      const path = isOpen
        ? join(message.handoverDir, handoverName())
        : join(scratchDir, `${artifactName.replaceAll("/", "_")}.safetensors`);
      const [kind, role] = what.split(":");
      if (kind === "state") {
        const digest = this.state.position?.digest ?? "";
        await compute.run("exportState", { path, digest });
      } else if (kind === "adapter") await compute.run("exportAdapter", { role, path });
      else await compute.run("exportModel", { role, path, ema: kind === "ema" });
      // While the next one is written.
      const upload = isOpen
        ? this.artifacts.handOver(artifactName, path)
        : this.artifacts.publish(artifactName, path);
      upload.catch(() => undefined); // awaited below
      uploads.push(upload);
    }
    const stateSha256 = message.fingerprint ? await compute.run("stateSha256", undefined) : "";
    return { published: { artifacts: await Promise.all(uploads), stateSha256 } };
  }
}

const isWritable = (folder: string): Promise<boolean> =>
  access(folder, constants.W_OK).then(
    () => true,
    () => false,
  );

/** "dns:10.0.0.7:7070" → "10.0.0.7" */
const hostOf = ({ learner }: Pick<Clients, "learner">): string =>
  splitAddress(
    learner
      .getChannel()
      .getTarget()
      .replace(/^(dns|ipv4|ipv6):(\/\/\/)?/, ""),
  ).host;

const orderOf = (message: TrainStep__Output): StepOrder => ({
  generation: message.generation,
  step: message.step,
  exchange: message.exchange,
  shards: message.shards.map(fromShard),
  shardCount: message.shardCount,
  denominators: { main: message.denominator, ptx: message.ptxDenominator },
  learningRates: message.learningRates,
});

/** Tokens of the rows that are run forward and backward. */
function tokensOf(rows: ShardRows): number {
  const total = <R>(list: readonly R[], lengthOf: (row: R) => number) =>
    list.reduce((sum, row) => sum + lengthOf(row), 0);
  switch (rows.kind) {
    case "sft":
      return total(rows.rows, ({ ids }) => ids.length);
    case "reward":
      return total(rows.rows, ({ chosen, rejected }) => chosen.length + rejected.length);
    case "ppo":
      return (
        total(rows.rows, ({ promptIds, responseIds }) => promptIds.length + responseIds.length) +
        total(rows.ptx ?? [], ({ ids }) => ids.length)
      );
  }
}
