/** What the coordinator asks a learner besides optimizer steps: each directive carries a request id and is answered once. */
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { join } from "node:path";
import { toColumn } from "../rpc/codec/columns.js";
import { fromShard } from "../rpc/codec/shard.js";
import { handoverName } from "../rpc/handover.js";
import type { ApplyVoted__Output } from "../rpc/generated/troupe/v1/ApplyVoted.js";
import type { ArtifactRef__Output } from "../rpc/generated/troupe/v1/ArtifactRef.js";
import type { Evaluate__Output } from "../rpc/generated/troupe/v1/Evaluate.js";
import type { LearnerDirective__Output } from "../rpc/generated/troupe/v1/LearnerDirective.js";
import type { LearnerMessage } from "../rpc/generated/troupe/v1/LearnerMessage.js";
import type { PublishState__Output } from "../rpc/generated/troupe/v1/PublishState.js";
import type { SetupStage__Output } from "../rpc/generated/troupe/v1/SetupStage.js";
import { collectGarbage } from "../shared/collect-garbage.js";
import { ArtifactClient } from "../worker/artifact-client.js";
import type { Session } from "../worker/coordinator-link.js";
import type { WorkerContext } from "../worker/start-worker.js";
import type { LearnerState } from "./learner-state.js";
import { stageSettings } from "./stage-settings.js";
import { initialDigest } from "./state-digest.js";

export type Answer = Omit<LearnerMessage, "sender" | "requestId">;

export class LearnerAnswers {
  private readonly artifacts: ArtifactClient;

  constructor(
    private readonly state: LearnerState,
    private readonly session: Session,
    private readonly context: WorkerContext<"learner">,
  ) {
    this.artifacts = new ArtifactClient(session.clients, session.sender);
  }

  /** @returns undefined when the directive is about an optimizer step, which is not answered here */
  to(directive: LearnerDirective__Output): Promise<Answer> | undefined {
    if (directive.setup) return this.setup(directive.setup);
    if (directive.evaluate) return this.evaluate(directive.evaluate);
    if (directive.publish) return this.publish(directive.publish);
    if (directive.applyVoted) return this.applyVoted(directive.applyVoted);
    return undefined;
  }

  close(): Promise<void> {
    return this.artifacts.close();
  }

  /**
   * Models of a stage, from files or from a seed; and the state of a peer or a checkpoint, when one is named. A copy that
   * came too late is made again: then only the state is new.
   */
  private async setup(message: SetupStage__Output): Promise<Answer> {
    const startedMs = performance.now();
    const { stage, appliedStep } = message;
    const before = this.state.modelsSetUp;
    this.state.forget();
    const settings = stageSettings(message, this.session.config);
    const key = JSON.stringify([settings, message.models]);
    // Without a state the models themselves are what is wanted; a round may have begun to train them.
    const isSetUp = message.state !== null && settings.round === null && before?.key === key;
    const models = isSetUp ? before : { key, parameterCount: await this.openModels(message, settings) };
    let digest = initialDigest(stage);
    if (message.state !== null) {
      const loaded = await this.state.compute.run("loadState", await this.artifacts.fetch(message.state));
      digest = loaded.digest;
      await this.artifacts.forget(message.state.sha256);
    }
    this.state.moveTo({ stage, step: appliedStep, digest }, models);
    const { parameterCount } = models;
    this.context.metrics.weightTransferDuration.observe((performance.now() - startedMs) / 1000);
    this.context.logger.info(
      { stage, applied_step: appliedStep, parameters: parameterCount },
      "stage set up",
    );
    return { setupDone: { healId: message.healId, appliedStep, parameterCount, digest } };
  }

  /** @returns how many parameters are trained */
  private async openModels(
    message: SetupStage__Output,
    settings: ReturnType<typeof stageSettings>,
  ): Promise<number> {
    const models = await Promise.all(
      message.models.map(async (model) => ({
        role: model.role,
        hfConfigJson: model.hfConfigJson,
        head: model.head as "lm" | "scalar",
        file: model.parameters === null ? null : await this.artifacts.fetch(model.parameters),
        initSeed: model.initSeed,
      })),
    );
    collectGarbage(); // of gradients that the compute thread shared with this one
    const { parameterCount } = await this.state.compute.run("configure", { ...settings, models });
    return parameterCount;
  }

  /** The commit that this learner could not hear. */
  private async applyVoted({ stage, step, digest, healId }: ApplyVoted__Output): Promise<Answer> {
    const held = this.state.takeVoted({ stage, step, digest });
    if ("total" in held) await this.state.compute.run("outerStep", held, [held.total]);
    else {
      await this.state.compute.run("applyGradients", { ...held, optimizerStep: step }, [held.gradients]);
    }
    this.state.moveTo({ stage, step, digest });
    this.context.logger.info({ stage, step }, "committed step applied late, from its vote");
    return { setupDone: { healId, appliedStep: step, digest } };
  }

  /** Metric sums of every row, in the order of shards and rows. */
  private async evaluate({ shards }: Evaluate__Output): Promise<Answer> {
    const rows: Record<string, Buffer> = {};
    for (const shard of shards) {
      const sums = await this.state.compute.run("evaluate", { rows: fromShard(shard).rows });
      for (const [name, values] of Object.entries<Float64Array>(sums)) {
        rows[name] = Buffer.concat([rows[name] ?? Buffer.alloc(0), toColumn(values)]);
      }
    }
    return { evaluated: { rows } };
  }

  /** Models, adapters and training state as files, each on its way while the next one is written. */
  private async publish({ items, handoverDir, fingerprint }: PublishState__Output): Promise<Answer> {
    const { compute, scratchDir } = this.state;
    const uploads: Promise<ArtifactRef__Output>[] = [];
    const isOpen = handoverDir !== "" && (await isWritable(handoverDir));
    for (const { what, artifactName } of items) {
      const path = isOpen
        ? join(handoverDir, handoverName())
        : join(scratchDir, `${artifactName.replaceAll("/", "_")}.safetensors`);
      await this.write(what, path);
      const upload = isOpen
        ? this.artifacts.handOver(artifactName, path)
        : this.artifacts.publish(artifactName, path);
      upload.catch(() => undefined); // awaited below
      uploads.push(upload);
    }
    const stateSha256 = fingerprint ? await compute.run("stateSha256", undefined) : "";
    return { published: { artifacts: await Promise.all(uploads), stateSha256 } };
  }

  /** @param what "state", or a kind and a model role: "model:actor", "ema:actor", "adapter:actor" */
  private async write(what: string, path: string): Promise<void> {
    const { compute, position } = this.state;
    const [kind, role] = what.split(":");
    if (kind === "state") await compute.run("exportState", { path, digest: position?.digest ?? "" });
    else if (kind === "adapter") await compute.run("exportAdapter", { role, path });
    else await compute.run("exportModel", { role, path, ema: kind === "ema" });
  }
}

const isWritable = (folder: string): Promise<boolean> =>
  access(folder, constants.W_OK).then(
    () => true,
    () => false,
  );
