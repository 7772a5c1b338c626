/**
 * A language task small enough to enumerate: a few prompts, 4 tokens (one of them EOS), answers of at most 3 tokens.
 * Every expectation is a finite sum, so a policy's objective and the best one any policy can reach are exact numbers.
 *
 *   J(π) = mean over prompts of  E_π[r(y)] − β·KL(π ‖ π_ref)
 *   π*(y) ∝ π_ref(y)·exp(r(y)/β)         max J = β·log E_ref[exp(r(y)/β)]
 *
 * A policy is a table of logits `[states, VOCABULARY]`; a state is a prompt and the tokens so far.
 */
import { normalAt, streamOf } from "../shared/rng.js";

export const VOCABULARY = 4;
export const EOS = 0;
export const MAX_TOKENS = 3;

export interface Answer {
  readonly prompt: number;
  /** Ends with EOS, or has MAX_TOKENS tokens. */
  readonly tokens: readonly number[];
  /** State before each token. */
  readonly states: readonly number[];
  readonly reward: number;
}

export interface EnumerableTask {
  readonly prompts: number;
  readonly beta: number;
  readonly stateCount: number;
  readonly answers: readonly Answer[];
  /** `[stateCount, VOCABULARY]` logits of π_ref */
  readonly refLogits: Float32Array;
}

export function makeEnumerableTask(seed: number, { prompts = 2, beta = 1 } = {}): EnumerableTask {
  const answers: Answer[] = [];
  let stateCount = 0;
  const rewards = streamOf("enumerable-task/rewards");
  const extend = (prompt: number, tokens: readonly number[], states: readonly number[]): void => {
    const state = stateCount++;
    for (let token = 0; token < VOCABULARY; token++) {
      const longer = [...tokens, token];
      const path = [...states, state];
      if (token === EOS || longer.length === MAX_TOKENS) {
        answers.push({
          prompt,
          tokens: longer,
          states: path,
          reward: normalAt(seed, rewards, answers.length),
        });
      } else extend(prompt, longer, path);
    }
  };
  for (let prompt = 0; prompt < prompts; prompt++) extend(prompt, [], []);
  const stream = streamOf("enumerable-task/ref");
  const refLogits = Float32Array.from({ length: stateCount * VOCABULARY }, (_, i) =>
    normalAt(seed, stream, i),
  );
  return { prompts, beta, stateCount, answers, refLogits };
}

/** log π(token | state) for every token of a state. */
export function logPolicyAt(logits: Float32Array, state: number): number[] {
  const row = Array.from(logits.subarray(state * VOCABULARY, (state + 1) * VOCABULARY));
  const max = Math.max(...row);
  const logSum = max + Math.log(row.reduce((sum, x) => sum + Math.exp(x - max), 0));
  return row.map((x) => x - logSum);
}

/** log π(y | prompt) */
export function logProbability(logits: Float32Array, { tokens, states }: Answer): number {
  return tokens.reduce((sum, token, i) => sum + logPolicyAt(logits, states[i])[token], 0);
}

/** Exact objective and KL(π ‖ π_ref) per answer (nats), means over prompts. */
export function evaluatePolicy(
  task: EnumerableTask,
  logits: Float32Array,
): { objective: number; kl: number } {
  let reward = 0;
  let kl = 0;
  for (const answer of task.answers) {
    const logPi = logProbability(logits, answer);
    const probability = Math.exp(logPi) / task.prompts;
    reward += probability * answer.reward;
    kl += probability * (logPi - logProbability(task.refLogits, answer));
  }
  return { objective: reward - task.beta * kl, kl };
}

/** The best objective of any policy, and the KL of the policy that reaches it. */
export function exactOptimum(task: EnumerableTask): { objective: number; kl: number } {
  let objective = 0;
  let kl = 0;
  for (let prompt = 0; prompt < task.prompts; prompt++) {
    const own = task.answers.filter((answer) => answer.prompt === prompt);
    const weights = own.map((a) => Math.exp(logProbability(task.refLogits, a) + a.reward / task.beta));
    const partition = weights.reduce((sum, w) => sum + w, 0);
    objective += (task.beta * Math.log(partition)) / task.prompts;
    // log(π*/π_ref) = r/β − log Z
    own.forEach(
      (a, i) =>
        (kl += ((weights[i] / partition) * (a.reward / task.beta - Math.log(partition))) / task.prompts),
    );
  }
  return { objective, kl };
}
