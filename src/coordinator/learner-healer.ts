/** Brings a learner to the state the core wants it in: from a peer, a checkpoint, or the stage's starting model. */
import type { Logger } from "../observability/logger.js";
import type { ArtifactRef__Output } from "../rpc/generated/troupe/v1/ArtifactRef.js";
import type { LearnerDirective } from "../rpc/generated/troupe/v1/LearnerDirective.js";
import type { SetupDone__Output } from "../rpc/generated/troupe/v1/SetupDone.js";
import { sleep } from "../shared/abort.js";
import { TroupeError, describeError, errorCodeOf, protocolError } from "../shared/errors.js";
import type { ArtifactStore } from "./artifact-store.js";
import type { HealLearner, HealSource } from "./core/index.js";
import type { CoreHost } from "./core-host.js";
import type { StageSetup } from "./optimizer-steps.js";
import type { LearnerRequests } from "./learner-requests.js";
import { STREAM_PATIENCE_MS, type StreamRegistry } from "./stream-registry.js";

/** Of the time for a copy, what its source gets: one that hangs is known before the learner that waits for it is given up. */
const SOURCE_SHARE = 0.8;
/** Between a failed copy of parameters and the next try. */
const RETRY_MS = 200;

export interface LearnerHealerOptions {
  readonly host: CoreHost;
  readonly logger: Logger;
  readonly artifacts: ArtifactStore;
  readonly streams: StreamRegistry<LearnerDirective>;
  readonly requests: LearnerRequests;
  /** For a peer to hand over its state, and for a learner to load one: models are files of any size. */
  readonly limitMs: number;
  /** A repeated round may come out differently: the journal cannot tell the history of a state. */
  readonly averagesParameters: boolean;
  /** For what no other learner and no restart can cure, such as a model that does not load. */
  readonly fail: (error: unknown) => void;
}

export class LearnerHealer {
  private setup: StageSetup | undefined;
  /** Asked for before the stage had put its models together: after a restart the core knows the open stage first. */
  private early: HealLearner[] = [];
  /** By learner: an older order is not carried out any more, its parameters would come after those of this one. */
  private readonly newest = new Map<string, number>();

  constructor(private readonly options: LearnerHealerOptions) {}

  /** The stage learners are healed for from now on; undefined between stages. */
  enter(setup: StageSetup | undefined): void {
    this.setup = setup;
    if (setup !== undefined) for (const effect of this.early.splice(0)) void this.heal(effect);
  }

  /** Never rejects: the core hears how it went. */
  async heal(effect: HealLearner): Promise<void> {
    const { setup } = this;
    this.newest.set(effect.workerId, effect.healId);
    if (setup === undefined) return void this.early.push(effect);
    if (setup.stage !== effect.stage) return;
    const { host, logger, artifacts } = this.options;
    const { workerId, incarnation, healId } = effect;
    try {
      const { appliedStep, digest } = await this.bring(effect, setup);
      const hash = this.options.averagesParameters ? "" : digest;
      const position = { stage: setup.stage, step: appliedStep, hash };
      host.dispatch({ type: "LearnerHealed", workerId, incarnation, healId, position });
    } catch (error) {
      if (this.isOvertaken(effect, setup)) return; // the core has another order out, or none
      logger.error({ err: error, worker_id: workerId }, "learner could not be set up");
      if (["DATA", "CONFIG", "SHAPE"].includes(errorCodeOf(error))) this.options.fail(error);
      await sleep(RETRY_MS);
      host.dispatch({
        type: "LearnerHealFailed",
        workerId,
        incarnation,
        healId,
        reason: describeError(error),
      });
    } finally {
      if (effect.source.kind === "peer") await artifacts.remove(copyName(effect)).catch(() => undefined);
    }
  }

  private async bring(effect: HealLearner, setup: StageSetup): Promise<SetupDone__Output> {
    const { requests, limitMs } = this.options;
    await this.connected(effect);
    const { source, step, healId } = effect;
    const { stage } = setup;
    const directive =
      source.kind === "vote"
        ? { applyVoted: { stage, step, digest: source.hash, healId } }
        : {
            setup: {
              stage,
              models: [...setup.models],
              tokenizer: setup.tokenizer,
              state: await this.stateFrom(effect, source, setup),
              appliedStep: step,
              healId,
              runShapes: [...setup.runShapes],
            },
          };
    if (this.isOvertaken(effect, setup))
      throw new TroupeError("CANCELLED", `${effect.workerId} is wanted in another state by now`);
    const { setupDone } = await requests.ask(effect.workerId, directive, { limitMs });
    if (!setupDone) throw protocolError("expected SetupDone");
    return setupDone;
  }

  /** Copying takes a while: meanwhile the stage may have ended, or the learner been given another source. */
  private isOvertaken({ workerId, healId }: HealLearner, setup: StageSetup): boolean {
    return this.setup !== setup || this.newest.get(workerId) !== healId;
  }

  private async stateFrom(
    effect: HealLearner,
    source: Exclude<HealSource, { kind: "vote" }>,
    setup: StageSetup,
  ): Promise<ArtifactRef__Output | null> {
    switch (source.kind) {
      case "initial":
        return null;
      case "checkpoint":
        return this.checkpointState(source.checkpointId, setup);
      case "peer": {
        await this.connected(source);
        const items = [{ what: "state", artifactName: copyName(effect) }];
        const directive = { publish: { items, handoverDir: await this.options.artifacts.handoverDir() } };
        const { requests } = this.options;
        const limitMs = SOURCE_SHARE * this.options.limitMs;
        const { published } = await requests.ask(source.workerId, directive, { limitMs });
        if (!published) throw protocolError("expected PublishDone");
        const { workerId, incarnation, healId } = effect;
        if (!this.isOvertaken(effect, setup))
          this.options.host.dispatch({ type: "StateLent", workerId, incarnation, healId });
        return published.artifacts[0];
      }
    }
  }

  /** A checkpoint that cannot be read is the core's to judge: it may know an older one. */
  private async checkpointState(checkpointId: string, setup: StageSetup): Promise<ArtifactRef__Output> {
    try {
      return await setup.checkpointState(checkpointId);
    } catch (cause) {
      if (errorCodeOf(cause) !== "DATA") throw cause;
      const reason = describeError(cause);
      this.options.host.dispatch({ type: "CheckpointDamaged", checkpointId, reason });
      throw new TroupeError("STORAGE", reason, { cause });
    }
  }

  /** Registration and stream are two calls: the second may still be under way. */
  private async connected({
    workerId,
    incarnation,
  }: {
    workerId: string;
    incarnation: number;
  }): Promise<void> {
    if (await this.options.streams.whenBound(workerId, incarnation, STREAM_PATIENCE_MS)) return;
    throw new TroupeError("UNREACHABLE", `${workerId} registered but opened no stream`);
  }
}

/** Of a peer's state on its way to the learner that copies it. */
const copyName = ({ incarnation, healId }: HealLearner): string => `heal/${incarnation}-${healId}`;
