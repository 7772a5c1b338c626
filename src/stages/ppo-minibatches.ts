/**
 * What the learners get for a PPO step: its minibatch, rebuilt from the ids in its manifest. The same ids give the same
 * micro-shards, bit for bit, also after a restart, when the experiences come from the journal's payloads.
 */
import type { JsonValue } from "../coordinator/core/index.js";
import type { StepInputs } from "../coordinator/optimizer-steps.js";
import { intoBatches, type TrainLoopOptions } from "../coordinator/train-loop.js";
import type { SftRow } from "../data/types.js";
import { importanceOf } from "../learner/stage-settings.js";
import { ppoDenominator, sftDenominator } from "../rl/loss-denominator.js";
import { makingExperience } from "../rl/make-experience.js";
import { IDENTITY_SCORE_NORMALIZER, type ScoreNormalizer } from "../rl/score-normalizer.js";
import { shuffled } from "../rl/shuffle.js";
import type { Experience, ExperienceId } from "../rl/types.js";
import type { MicroShard } from "../rpc/codec/shard.js";
import { makeDeferred } from "../shared/abort.js";
import { inSlices } from "../shared/steps.js";
import { cutMicroShards, shardCountOf } from "./micro-shards.js";
import type { PpoSchedule } from "./ppo-schedule.js";
import type { ProximalPolicy } from "./proximal-policy.js";
import type { RunContext } from "./run-context.js";

export class PpoMinibatches {
  private normalizer: ScoreNormalizer = IDENTITY_SCORE_NORMALIZER;
  /** Until then the normalizer is not the stage's own; after a restart steps may be repeated sooner. */
  private readonly normalizerSet = makeDeferred<void>();
  private made:
    { readonly iteration: number; readonly byId: ReadonlyMap<ExperienceId, Experience> } | undefined;

  constructor(
    private readonly run: RunContext,
    private readonly schedule: PpoSchedule,
    private readonly proximal: ProximalPolicy,
  ) {}

  /** @param normalizer null leaves the reward model's scores as they are */
  normalizeScores(normalizer: ScoreNormalizer | null): void {
    this.normalizer = normalizer ?? IDENTITY_SCORE_NORMALIZER;
    this.normalizerSet.resolve();
  }

  /** How rollouts become experiences. */
  experienceOptions(): TrainLoopOptions["experience"] {
    const { config, tokenizer } = this.run;
    const { clipRewardValue, gamma, lam, whitenAdvantages, missingEosPenalty, eosGap } = config.ppo;
    const { eosId, padId } = tokenizer.info;
    return {
      ...{ clipRewardValue, gamma, lam, whitenAdvantages, missingEosPenalty },
      ...this.normalizer,
      eosGap: eosGap ? { eosId, padId } : null,
    };
  }

  /** Takes over what the train loop has made, so that its steps need not make it again. */
  keep(iteration: number, experiences: readonly Experience[]): void {
    const byId = new Map(experiences.map((experience) => [experience.experienceId, experience]));
    this.made = { iteration, byId };
  }

  /**
   * @param input what the manifest tells besides the ids, see `ppoUpdate`
   * @param wantedShards the manifest's: of a minibatch with few rows fewer
   */
  async materialize(
    ids: readonly ExperienceId[],
    input: JsonValue,
    step: number,
    wantedShards: number,
  ): Promise<StepInputs> {
    const { iteration, klCoef } = input as { iteration: number; klCoef: number };
    await this.normalizerSet.promise;
    const byId = await this.experiencesOf(iteration, klCoef);
    const rows = ids.map((id) => byId.get(id) as Experience);
    const shardCount = shardCountOf(rows.length, wantedShards);
    const parts = cutMicroShards(rows, shardCount, (row) => row.promptIds.length + row.responseIds.length);
    const ptx = this.ptxRows(step, rows.length);
    const ptxParts = ptx.length === 0 ? undefined : cutMicroShards(ptx, shardCount, (row) => row.ids.length);
    const shards = parts.map((part, index): MicroShard => ({
      index,
      rows: { kind: "ppo", rows: part, ...(ptxParts ? { ptx: ptxParts[index] } : {}) },
    }));
    return {
      shards,
      experienceIds: parts.map((part) => part.map(({ experienceId }) => experienceId)),
      denominator: ppoDenominator(rows),
      ptxDenominator: sftDenominator(ptx),
      learningRates: this.schedule.learningRates(step),
    };
  }

  private async experiencesOf(
    iteration: number,
    klCoef: number,
  ): Promise<ReadonlyMap<ExperienceId, Experience>> {
    if (this.made?.iteration === iteration) return this.made.byId;
    const { host, store, config } = this.run;
    const sampled = await store.getAll(host.experienceIdsOf(iteration));
    const rollouts =
      importanceOf(config.ppo) === null ? sampled : await this.proximal.recall(iteration, sampled);
    const options = { ...this.experienceOptions(), klCoef };
    let all: Experience[] = [];
    for (const batch of intoBatches(rollouts, config.ppo.generationBatches))
      all = all.concat(await inSlices(makingExperience(batch, options)));
    this.keep(iteration, all);
    return this.made!.byId;
  }

  /** Rows of the sft split mixed into a step, as many as it has experiences: pass after pass in a new order. */
  private ptxRows(step: number, count: number): SftRow[] {
    const { config, data } = this.run;
    const rows = data.sft.train;
    if (config.ppo.ptx === null) return [];
    const iteration = Math.floor(((step - 1) * count) / rows.length);
    const order = shuffled(rows, { seed: config.seed, iteration, epoch: -1 });
    return Array.from({ length: count }, (_, i) => order[((step - 1) * count + i) % order.length]);
  }
}
