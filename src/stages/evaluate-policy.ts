/** Answers to held-out prompts, scored: what the policy is worth, measured the same way before and after. */
import type { PerformanceBrief } from "../coordinator/dispatcher.js";
import { sequenceKl } from "../rl/kl.js";
import type { Prompt } from "../rl/types.js";
import type { RunContext } from "./run-context.js";

export interface PolicyEvaluation {
  /** Reward model's score of each answer, in prompt order; null where a prompt has no usable answer. */
  readonly scores: readonly (number | null)[];
  readonly meanScore: number;
  /** Mean over answers of Σ log π − log π_ref, nats. */
  readonly klToRef: number;
  readonly prompts: readonly string[];
  readonly answers: readonly (string | null)[];
}

/** The same prompts and random numbers every time, so that two evaluations differ by the policy alone. */
export async function evaluatePolicy(
  run: RunContext,
  name: string,
  policyVersion: number,
  brief: PerformanceBrief,
): Promise<PolicyEvaluation> {
  const startedMs = performance.now();
  const rows = run.data.ppo.eval.slice(0, run.config.eval.prompts);
  if (rows.length === 0) return { scores: [], meanScore: NaN, klToRef: NaN, prompts: [], answers: [] };
  const prompts = rows.map((row): Prompt => ({
    promptIndex: row.promptIndex,
    sampleIndex: 0,
    experienceId: `eval/${row.promptIndex}/0`,
    promptIds: row.promptIds,
  }));
  const answers = await run.dispatcher.evaluate(
    `evaluate/${name}-v${policyVersion}`,
    prompts,
    policyVersion,
    brief,
    run.signal,
  );
  const rollouts = answers.filter((rollout) => rollout !== null);
  const texts = await run.tokenizer.decode(rollouts.map(({ responseIds }) => responseIds));
  const textOf = new Map(rollouts.map((rollout, i) => [rollout, texts[i]]));
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  run.metrics.iterationPhaseDuration.observe({ phase: "evaluate" }, (performance.now() - startedMs) / 1000);
  return {
    scores: answers.map((rollout) => rollout?.score ?? null),
    meanScore: mean(rollouts.map(({ score }) => score)),
    klToRef: mean(
      rollouts.map(({ logprobs, refLogprobs }) =>
        sequenceKl("k1", logprobs, refLogprobs, new Uint8Array(logprobs.length).fill(1)),
      ),
    ),
    prompts: rows.map((row) => row.promptText),
    answers: answers.map((rollout) => (rollout === null ? null : textOf.get(rollout)!)),
  };
}
