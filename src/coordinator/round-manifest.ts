/**
 * The minibatches of a round of parameter averaging as one step of the core: which experiences they take, in which order,
 * and what else each needs. It is what the journal keeps, so a round can be done again after a restart.
 */
import type { JsonValue } from "./core/index.js";
import type { StepRequest } from "./optimizer-steps.js";

/** One minibatch of a round, and the optimizer step every learner takes on its rows of it. */
export interface RoundUpdate {
  readonly experienceIds: readonly string[];
  readonly input: JsonValue;
  /** Counted since the stage began, from 1. */
  readonly optimizerStep: number;
}

/** `StepRequest.input` of a round. */
interface RoundInput {
  readonly firstOptimizerStep: number;
  /** Places of each minibatch's experiences in the round's list, which names none twice. */
  readonly minibatches: readonly (readonly number[])[];
  readonly input: JsonValue;
}

/**
 * Consecutive minibatches, `every` to a round. A round is a final use of all its experiences or of none, so a new one
 * begins where that changes (at PPO's last epoch).
 */
export function intoRounds<Request extends Pick<StepRequest, "isFinalUse">>(
  requests: readonly Request[],
  every: number,
): Request[][] {
  const rounds: Request[][] = [];
  for (const request of requests) {
    const last = rounds.at(-1);
    if (last !== undefined && last.length < every && last[0].isFinalUse === request.isFinalUse)
      last.push(request);
    else rounds.push([request]);
  }
  return rounds;
}

/**
 * @param updates            minibatches of equal `input` and `isFinalUse`
 * @param step               number of the round
 * @param firstOptimizerStep of its first minibatch
 */
export function roundRequest(
  updates: readonly Pick<StepRequest, "experienceIds" | "input" | "isFinalUse" | "shardCount">[],
  step: number,
  firstOptimizerStep: number,
): StepRequest {
  const places = new Map<string, number>();
  for (const id of updates.flatMap(({ experienceIds }) => experienceIds))
    if (!places.has(id)) places.set(id, places.size);
  const [{ isFinalUse, input }] = updates;
  const minibatches = updates.map(({ experienceIds }) => experienceIds.map((id) => places.get(id)!));
  return {
    step,
    experienceIds: [...places.keys()],
    input: { firstOptimizerStep, minibatches, input },
    shardCount: Math.max(...updates.map(({ shardCount }) => shardCount)),
    isFinalUse,
  };
}

/** Experiences that one learner was given of one minibatch. */
export interface RoundPart {
  readonly workerId: string;
  /** Its micro-shards over all of the minibatch's, 0 to 1. */
  readonly share: number;
  readonly experienceIds: readonly string[];
}

/**
 * Experiences of a round that nobody trained: a learner that is gone trained none of its parts, one that was told to
 * stop those of the first minibatches. One that is in several minibatches is trained when one of them was.
 * @param parts   every learner's in the order of the minibatches
 * @param trained workerId → sum of the shares it trained, of those whose parameters are averaged
 */
export function leftOutOf(parts: readonly RoundPart[], trained: ReadonlyMap<string, number>): string[] {
  const reached = new Map<string, number>();
  const used = new Set<string>();
  for (const { workerId, share, experienceIds } of parts) {
    const before = reached.get(workerId) ?? 0;
    reached.set(workerId, before + share);
    // A part is trained whole or not at all: its middle tells.
    if (before + share / 2 < (trained.get(workerId) ?? 0)) for (const id of experienceIds) used.add(id);
  }
  const all = new Set(parts.flatMap(({ experienceIds }) => experienceIds));
  return [...all].filter((id) => !used.has(id));
}

/** The minibatches `roundRequest` was made of. */
export function updatesOf({
  experienceIds,
  input,
}: Pick<StepRequest, "experienceIds" | "input">): RoundUpdate[] {
  const round = input as unknown as RoundInput;
  return round.minibatches.map((places, k) => ({
    experienceIds: places.map((place) => experienceIds[place]),
    input: round.input,
    optimizerStep: round.firstOptimizerStep + k,
  }));
}
