/** What a worker was asked for, and whether what it sent is an answer to that. */
import type { Prompt, ScoredRollout } from "../rl/types.js";
import { protocolError } from "../shared/errors.js";
import type { PerformanceBrief } from "./dispatcher.js";

export interface AskedFor {
  readonly prompt: Prompt;
  readonly brief: Pick<PerformanceBrief, "vocabularySize" | "sampling" | "score">;
}

/**
 * An answer to another prompt, or one that cannot have been sampled as told, would be trained on as if it were right.
 * @throws {TroupeError} PROTOCOL naming id, field, what was expected and what came
 */
export function checkAnswer(rollout: ScoredRollout, { prompt, brief }: AskedFor): void {
  const { experienceId, promptIds, responseIds, refLogprobs } = rollout;
  const refuse = (field: string, expected: string, got: string | number) => {
    throw protocolError(
      `experience ${experienceId}: ${field}: expected ${expected}, got ${got}; run the same release of troupe everywhere`,
    );
  };
  if (rollout.promptIndex !== prompt.promptIndex)
    refuse("prompt_index", `${prompt.promptIndex}`, rollout.promptIndex);
  if (rollout.sampleIndex !== prompt.sampleIndex)
    refuse("sample_index", `${prompt.sampleIndex}`, rollout.sampleIndex);
  if (promptIds.length !== prompt.promptIds.length)
    refuse("prompt_ids", `the ${prompt.promptIds.length} tokens of the task`, `${promptIds.length} tokens`);
  const other = promptIds.findIndex((id, i) => id !== prompt.promptIds[i]);
  if (other >= 0)
    refuse(`prompt_ids[${other}]`, `${prompt.promptIds[other]} as in the task`, promptIds[other]);
  const { maxNewTokens = Infinity } = brief.sampling;
  if (responseIds.length > maxNewTokens)
    refuse("response_ids", `at most ${maxNewTokens} tokens`, responseIds.length);
  const foreign = responseIds.findIndex((id) => id < 0 || id >= brief.vocabularySize);
  if (foreign >= 0)
    refuse(`response_ids[${foreign}]`, `a token from 0 to ${brief.vocabularySize - 1}`, responseIds[foreign]);
  if (brief.score !== refLogprobs.length > 0)
    refuse("ref_logprobs", brief.score ? "one for each token" : "none", refLogprobs.length);
}
