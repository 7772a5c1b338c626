/** The prompts of a rollout task. */
import type { Prompt } from "../../rl/types.js";
import type { PromptRow, PromptRow__Output } from "../generated/troupe/v1/PromptRow.js";
import { int32Column, toColumn } from "./columns.js";

export function toPromptRow(prompt: Prompt): PromptRow {
  return {
    experienceId: prompt.experienceId,
    promptIndex: prompt.promptIndex,
    sampleIndex: prompt.sampleIndex,
    promptIds: toColumn(prompt.promptIds),
  };
}

export function fromPromptRow(message: PromptRow__Output): Prompt {
  return {
    experienceId: message.experienceId,
    promptIndex: message.promptIndex,
    sampleIndex: message.sampleIndex,
    promptIds: int32Column(message.promptIds, "PromptRow.prompt_ids"),
  };
}
