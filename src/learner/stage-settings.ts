/** From the run's configuration to what the compute thread needs for one stage. */
import type { Config, OptimizerConfig } from "../config/schema.js";
import type { Importance } from "../rl/policy-loss.js";
import type { SetupStage__Output } from "../rpc/generated/troupe/v1/SetupStage.js";
import { protocolError } from "../shared/errors.js";
import { engineSettings } from "../worker/engine-settings.js";

/** The correction that the run's experience needs: fresh experience needs none. */
export function importanceOf({ staleness, importance, importanceCap }: Config["ppo"]): Importance | null {
  return staleness === 0 || importance === "none" ? null : { kind: importance, cap: importanceCap };
}

export function stageSettings(message: SetupStage__Output, config: Config) {
  const { stage } = message;
  const { sft, reward, ppo, cluster, generation } = config;
  const common = {
    engine: engineSettings(config),
    padId: message.tokenizer?.padId ?? 0,
    runShapes: message.runShapes.map(({ rows, length, listed }) => ({ rows, length, listed })),
    lora: config.model.lora,
    wire: cluster.wire,
    microBatchTokens: config.engine.microBatchTokens,
    round: cluster.sync === "parameters" ? cluster : null,
    recompute: config.engine.recompute,
  };
  const settings = (optimizers: Record<string, OptimizerConfig>) => ({ ...common, optimizers });
  switch (stage) {
    case "sft":
      return {
        ...settings({ model: sft.optimizer }),
        stage,
        hyper: {},
      };
    case "reward":
      return {
        ...settings({ model: reward.optimizer }),
        stage,
        hyper: { rewardLoss: reward.loss },
      };
    case "ppo":
      return {
        ...settings({ actor: ppo.actor, critic: ppo.critic }),
        stage,
        hyper: {
          cliprange: ppo.cliprange,
          cliprangeValue: ppo.cliprangeValue,
          importance: importanceOf(ppo),
          temperature: generation.temperature,
          ptxCoef: ppo.ptx?.coef ?? 0,
          emaDecay: ppo.ema?.decay ?? null,
          lossDenominator: ppo.lossDenominator,
        },
      };
    default:
      throw protocolError(`SetupStage.stage: expected sft, reward or ppo, got ${JSON.stringify(stage)}`);
  }
}
