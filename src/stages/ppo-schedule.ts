/** How many optimizer steps the PPO stage takes, and the learning rates along them. */
import type { Config } from "../config/schema.js";
import { learningRateAt } from "../rl/schedule.js";

export class PpoSchedule {
  /** Of one pass over an iteration's experiences. */
  readonly minibatchesPerIteration: number;
  private readonly totalSteps: number;

  constructor(private readonly ppo: Config["ppo"]) {
    const experiencesPerBatch = ppo.rolloutBatchSize * ppo.samplesPerPrompt;
    this.minibatchesPerIteration = Math.ceil(experiencesPerBatch / ppo.minibatchSize) * ppo.generationBatches;
    this.totalSteps = ppo.iterations * this.stepsPerIteration;
  }

  get stepsPerIteration(): number {
    return this.ppo.ppoEpochs * this.minibatchesPerIteration;
  }

  /** By model role. @param step from 1 */
  learningRates(step: number): { readonly actor: number; readonly critic: number } {
    const { actor, critic } = this.ppo;
    return {
      actor: learningRateAt(actor, step - 1, this.totalSteps),
      critic: learningRateAt(critic, step - 1, this.totalSteps),
    };
  }
}
