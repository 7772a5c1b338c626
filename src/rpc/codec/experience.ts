/** Rollout tasks and their results: one to/from pair per message. */
import type { Prompt, ScoredRollout, Rollout } from "../../rl/types.js";
import { numericError, protocolError } from "../../shared/errors.js";
import type {
  Experience as ExperienceMessage,
  Experience__Output,
} from "../generated/troupe/v1/Experience.js";
import type { PromptRow, PromptRow__Output } from "../generated/troupe/v1/PromptRow.js";
import { float32Column, int32Column, isAllFinite, toColumn } from "./columns.js";

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

const FINISH = { eos: "EOS", stop: "STOP", length: "LENGTH" } as const;
const FROM_FINISH = { EOS: "eos", STOP: "stop", LENGTH: "length" } as const;

const NONE = new Float32Array(0);

/** @param rollout a scored rollout, or (tasks that asked for no scores) a plain one */
export function toExperienceMessage(
  taskId: string,
  attempt: number,
  rollout: Rollout | ScoredRollout,
): ExperienceMessage {
  const scored: ScoredRollout =
    "score" in rollout ? rollout : { ...rollout, refLogprobs: NONE, values: NONE, score: 0 };
  return {
    taskId,
    attempt,
    experienceId: scored.experienceId,
    promptIndex: scored.promptIndex,
    sampleIndex: scored.sampleIndex,
    policyVersion: scored.policyVersion,
    promptIds: toColumn(scored.promptIds),
    responseIds: toColumn(scored.responseIds),
    logprobs: toColumn(scored.logprobs),
    refLogprobs: toColumn(scored.refLogprobs),
    values: toColumn(scored.values),
    score: scored.score,
    finishReason: FINISH[scored.finishReason],
  };
}

/**
 * @throws {TroupeError} PROTOCOL when columns disagree in length, NUMERIC when a number is not finite
 */
export function fromExperienceMessage(message: Experience__Output): ScoredRollout {
  const name = `experience ${message.experienceId}`;
  const responseIds = int32Column(message.responseIds, `${name}: response_ids`);
  const length = responseIds.length;
  if (length === 0) throw protocolError(`${name}: expected at least one response token, got none`);
  const isScored = message.refLogprobs.byteLength > 0;
  const scoreLength = isScored ? length : 0;
  if (message.finishReason === "FINISH_REASON_UNSPECIFIED")
    throw protocolError(`${name}: finish_reason is not set`);
  const rollout: ScoredRollout = {
    experienceId: message.experienceId,
    promptIndex: message.promptIndex,
    sampleIndex: message.sampleIndex,
    policyVersion: message.policyVersion,
    promptIds: int32Column(message.promptIds, `${name}: prompt_ids`),
    responseIds,
    logprobs: float32Column(message.logprobs, `${name}: logprobs`, length),
    refLogprobs: float32Column(message.refLogprobs, `${name}: ref_logprobs`, scoreLength),
    values: float32Column(message.values, `${name}: values`, scoreLength),
    score: message.score,
    finishReason: FROM_FINISH[message.finishReason],
  };
  for (const field of ["logprobs", "refLogprobs", "values"] as const) {
    if (!isAllFinite(rollout[field])) throw numericError(`${name}: ${field} holds NaN or infinity`);
  }
  if (!Number.isFinite(rollout.score)) throw numericError(`${name}: score is ${rollout.score}`);
  return rollout;
}
