/**
 * The simulated workers' arithmetic: whole numbers instead of tensors, but with the same dependencies. Parameters
 * after a step depend on the parameters before it and, in shard order, on the content of every experience, which
 * depends on the policy that sampled it. So one wrong, missing, doubled or reordered ingredient changes every later hash.
 */
export function mix(a: number, b: number): number {
  let h = Math.imul(a ^ 0x85ebca6b, 0xc2b2ae35) ^ Math.imul(b + 0x9e3779b9, 0x27d4eb2f);
  h = Math.imul(h ^ (h >>> 15), 0x2c1b3c6d);
  h = Math.imul(h ^ (h >>> 12), 0x297a2d39);
  return (h ^ (h >>> 15)) >>> 0;
}

export function hashText(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  return h >>> 0;
}

export const INITIAL_PARAMETERS = 0x1234567;

/** What a rollout worker makes of a prompt with the policy of these parameters. */
export const sampleContent = (experienceId: string, parameters: number): number =>
  mix(hashText(experienceId), parameters);

/** Gradient of one micro-shard: the experiences `i` with `floor(i · shardCount / n) = shard`, in order. */
export function shardGradient(
  parameters: number,
  step: number,
  contents: readonly number[],
  shard: number,
  shardCount: number,
): number {
  let gradient = mix(parameters, step);
  for (let i = 0; i < contents.length; i++) {
    if (Math.floor((i * shardCount) / contents.length) === shard) gradient = mix(gradient, contents[i]);
  }
  return gradient;
}

/** The experiences of a minibatch that lie in these micro-shards. */
export const idsOfShards = (
  experienceIds: readonly string[],
  { firstShard, shardCount: own }: { readonly firstShard: number; readonly shardCount: number },
  shardCount: number,
): string[] =>
  experienceIds.filter((_, i) => {
    const shard = Math.floor((i * shardCount) / experienceIds.length);
    return shard >= firstShard && shard < firstShard + own;
  });

/** One optimizer step of a learner on its own micro-shards of a minibatch. */
export function localStep(
  parameters: number,
  optimizerStep: number,
  contents: readonly number[],
  { firstShard, shardCount: own }: { readonly firstShard: number; readonly shardCount: number },
  shardCount: number,
): number {
  if (own === 0) return parameters;
  const gradients = Array.from({ length: own }, (_, i) =>
    shardGradient(parameters, optimizerStep, contents, firstShard + i, shardCount),
  );
  return applyGradient(parameters, reduceShards(gradients));
}

/** A learner's part in the average of a round. */
export const weighted = (local: number, weight: number): number => mix(local, Math.round(weight * 1e6));

/** Order matters, as it does for floating-point sums. */
export function reduceShards(gradients: readonly number[]): number {
  let sum = 0;
  for (const gradient of gradients) sum = mix(sum, gradient);
  return sum;
}

export const applyGradient = (parameters: number, gradient: number): number => mix(parameters, gradient);

export const hashOf = (parameters: number): string => parameters.toString(16);
