/** What a run is doing at a moment, read from the coordinator's answer to `Status`. */
import type { RunStatus } from "../rpc/control-client.js";
import type { TrainingPlan } from "./training.js";

/** The phases faults are aimed at. `supervised` is sft and reward, the others are those of a PPO iteration. */
export const AIMED_PHASES = ["supervised", "collecting", "updating", "publishing", "checkpointing"] as const;
export type AimedPhase = (typeof AIMED_PHASES)[number];
/** `between`: stages change, the policy is evaluated, or a collection has nothing yet. `away`: nobody answers. */
export type Phase = AimedPhase | "between" | "away";

/**
 * Within iteration i (counted from 0, S optimizer steps each, B experiences):
 *
 *   collecting      0 < buffered < B
 *   updating        all B are there, and fewer than (i + 1)·S steps are done
 *   publishing      (i + 1)·S steps are done, the policy version is still i
 *   checkpointing   the version is i + 1; the iteration is committed, then saved
 */
export function phaseOf(
  status: RunStatus | undefined,
  plan: Pick<TrainingPlan, "iterations" | "experiencesPerIteration" | "stepsPerIteration">,
): Phase {
  if (status === undefined) return "away";
  if (status.stage === "sft" || status.stage === "reward") return "supervised";
  if (status.stage !== "ppo") return "between";
  const { iteration, optimizerStep, policyVersion } = status;
  const buffered = status.ledger?.buffered ?? 0;
  const { stepsPerIteration, experiencesPerIteration, iterations } = plan;
  const stepsDone = optimizerStep - iteration * stepsPerIteration;
  if (stepsDone >= stepsPerIteration) {
    if (policyVersion === iteration) return "publishing";
    return iteration + 1 === iterations ? "between" : "checkpointing";
  }
  if (stepsDone > 0 || buffered >= experiencesPerIteration) return "updating";
  return buffered > 0 ? "collecting" : "between";
}
