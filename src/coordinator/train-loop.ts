/**
 * PPO, as the paper tells it (Ziegler et al. 2019, Stiennon et al. 2020, DeepSpeed-Chat): the main loop of stage 3.
 * Every call below may outlive the death of any worker; how is told where it is implemented.
 *
 * Repeating an iteration is harmless: after a restart the loop starts again at the first uncommitted iteration, and
 * experiences and steps that already exist are answered from the journal instead of being made again.
 */
import { makingExperience, type ExperienceOptions } from "../rl/make-experience.js";
import { MiniDataset } from "../rl/mini-dataset.js";
import { measuringExperience, type ExperienceStats } from "../rl/stats.js";
import { stepKlController, type KlController } from "../rl/kl-controller.js";
import type { Experience, Prompt, ScoredRollout } from "../rl/types.js";
import { inSlices } from "../shared/steps.js";
import { CollectAhead } from "./collect-ahead.js";
import type { UpdateStats } from "./ppo-update.js";

/** Where the loop stands between two iterations: everything a resume needs besides the learners' state. */
export interface LoopState {
  readonly iteration: number;
  readonly policyVersion: number;
  readonly klController: KlController;
  readonly promptCursor: number;
  /** Optimizer steps finished so far in the stage. */
  readonly optimizerSteps: number;
  /** The KL to the reference passed the budget: no iteration follows. */
  readonly isKlBudgetSpent: boolean;
}

/** The callees. Each one is a file of its own. */
export interface Troupe {
  /** Next prompts of the ppo split, with the ids their experiences will have. */
  nextPrompts(iteration: number, cursor: number): { prompts: Prompt[]; nextCursor: number };
  /** Asks for rollouts that `perform` will be called for later; they are made meanwhile. */
  ask(iteration: number, prompts: readonly Prompt[], oldestVersion: number): void;
  /**
   * y ~ π_old(·|x) on the rollout workers, with log π_ref, V and the reward model's score; each admitted once, and
   * none of a policy older than `oldestVersion`.
   */
  perform(iteration: number, prompts: readonly Prompt[], oldestVersion: number): Promise<ScoredRollout[]>;
  /** Adds log π_prox, the policy about to be trained, to rollouts of older ones when staleness is corrected for. */
  reassess(state: LoopState, rollouts: readonly ScoredRollout[]): Promise<readonly ScoredRollout[]>;
  /** PPO epochs over the minibatches on the learners: see ppo-update.ts. */
  update(state: LoopState, minibatches: readonly (readonly Experience[])[]): Promise<UpdateStats>;
  /** π_old ← π_θ: new weights of actor and critic, under the next version. */
  publish(policyVersion: number): Promise<void>;
  /** The iteration's experiences are spent; makes `state` the place to resume from. */
  commit(state: LoopState): Promise<void>;
  report(iteration: number, experience: ExperienceStats, update: UpdateStats, klCoef: number): void;
}

export interface TrainLoopOptions {
  readonly iterations: number;
  /** η: iterations collected ahead of the one that trains. */
  readonly staleness: number;
  readonly generationBatches: number;
  readonly minibatchSize: number;
  readonly klBudget: number | null;
  readonly experience: Omit<ExperienceOptions, "klCoef">;
}

/** @returns the state after the last iteration: all of them, or fewer when the KL budget was spent */
export async function trainLoop(
  troupe: Troupe,
  options: TrainLoopOptions,
  resume: LoopState,
): Promise<LoopState> {
  let state = resume;
  const collections = new CollectAhead(troupe, options);
  const miniDataset = new MiniDataset<Experience>(options.generationBatches, options.minibatchSize);
  while (state.iteration < options.iterations && !state.isKlBudgetSpent) {
    const { iteration, policyVersion, klController } = state;
    const { rollouts: sampled, nextCursor } = await collections.take(state); // and the next η iterations' are begun
    const rollouts = await troupe.reassess(state, sampled);

    const minibatches: Experience[][] = [];
    let experiences: Experience[] = [];
    for (const batch of intoBatches(rollouts, options.generationBatches)) {
      const made = await inSlices(
        makingExperience(batch, { ...options.experience, klCoef: klController.coef }),
      ); // −β·KL + score, GAE, whitening
      experiences = experiences.concat(made);
      minibatches.push(...(miniDataset.add(made) ?? []));
    }

    const update = await troupe.update(state, minibatches); // epochs × minibatches: clipped losses, AdamW
    const stats = await inSlices(measuringExperience(experiences));
    await troupe.publish(policyVersion + 1);
    state = {
      iteration: iteration + 1,
      policyVersion: policyVersion + 1,
      klController: stepKlController(klController, stats.kl, experiences.length),
      promptCursor: nextCursor,
      optimizerSteps: state.optimizerSteps + update.optimizerSteps,
      isKlBudgetSpent: options.klBudget !== null && stats.kl > options.klBudget,
    };
    await troupe.commit(state);
    troupe.report(iteration, stats, update, klController.coef);
  }
  return state;
}

/** One group per generation batch, in prompt order; dropped prompts leave their group shorter. */
export function intoBatches<T>(rollouts: readonly T[], count: number): T[][] {
  const size = Math.ceil(rollouts.length / count);
  return Array.from({ length: count }, (_, i) => rollouts.slice(i * size, (i + 1) * size));
}
