/**
 * Actor and critic by policy version: published by the learners after every iteration, loaded by rollout workers beside
 * the reference and the reward model.
 */
import { hasAdapters, type ModelSource } from "../coordinator/model-folders.js";
import { parseModelConfig } from "../models/model-spec.js";
import type { ModelRef } from "../rpc/generated/troupe/v1/ModelRef.js";
import { storageError } from "../shared/errors.js";
import type { RunContext } from "./run-context.js";

export interface PpoModels {
  readonly policy: ModelSource;
  readonly reward: ModelSource;
}

const VERSIONED_ROLES = ["actor", "critic"] as const;

export class PolicyVersions {
  /** Kept beside the newest: those that may still sample, and one that may still be loading. */
  private readonly keptCount: number;
  /** Over a frozen base a version is its adapters: workers hold what these sit on, as reference and reward model. */
  private readonly areAdapters: boolean;
  private readonly actor: ModelRef;
  private readonly critic: ModelRef;

  constructor(
    private readonly run: RunContext,
    private readonly models: PpoModels,
  ) {
    this.keptCount = run.config.ppo.staleness + 1;
    this.areAdapters = hasAdapters(run.config);
    this.actor = { ...models.policy, role: "actor", head: "lm" };
    this.critic = { ...models.reward, role: "critic", head: "scalar" };
  }

  /** What the learners train, as it stands before the first step. */
  get trained(): readonly ModelRef[] {
    return [this.actor, this.critic];
  }

  /** Answers hold ids below it. A config.json may leave it to its model type. */
  get vocabularySize(): number {
    return parseModelConfig(JSON.parse(this.models.policy.hfConfigJson), "lm").vocabularySize;
  }

  /** What a rollout worker holds to sample and score with a version. */
  replicas(policyVersion: number): ModelRef[] {
    const { policy, reward } = this.models;
    const versioned = (role: string, start: ModelSource): Partial<ModelRef> => ({
      parameters: this.run.artifacts.get(`${role}/${policyVersion}`),
      base: this.areAdapters ? start.parameters : null,
    });
    return [
      { ...this.actor, ...versioned("actor", policy) },
      { ...policy, role: "ref", head: "lm" },
      { ...reward, role: "reward", head: "scalar" },
      { ...this.critic, ...versioned("critic", reward) },
    ];
  }

  /** π_old ← π_θ; the version that nobody samples with any more is removed. */
  async publish(policyVersion: number): Promise<void> {
    const { learners, host, metrics, artifacts, signal } = this.run;
    const items = VERSIONED_ROLES.map((role) => ({
      what: `${this.areAdapters ? "adapter" : "model"}:${role}`,
      artifactName: `${role}/${policyVersion}`,
    }));
    const { artifacts: refs } = await learners.publish(items, signal, { isFingerprinted: false });
    host.dispatch({ type: "VersionPublished", policyVersion, sha256: refs[0].sha256 });
    metrics.policyVersion.set(policyVersion);
    for (const role of VERSIONED_ROLES)
      await artifacts.remove(`${role}/${policyVersion - this.keptCount - 1}`);
  }

  /**
   * Finds or publishes what iterations from `policyVersion` on sample with. After a restart the weights are still on
   * disk, while the learners may already be further.
   * @throws {TroupeError} STORAGE when a version that is needed was published and its file is gone
   */
  async recover(policyVersion: number): Promise<void> {
    const { host, artifacts } = this.run;
    const published = host.state.durable.policyVersion;
    for (let version = Math.max(0, policyVersion - this.keptCount); version <= published; version++) {
      for (const name of VERSIONED_ROLES.map((role) => `${role}/${version}`)) {
        if (!(await artifacts.recover(name)) && version >= policyVersion)
          throw storageError(
            `${name} was published, but its file is gone: the run directory is damaged; start the run again in another one`,
          );
      }
    }
    if (published < policyVersion) await this.publish(policyVersion);
  }
}
