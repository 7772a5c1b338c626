/**
 * Which payloads stay. Two readers may come back for one: the train loop, which after a restart collects the first
 * uncommitted iteration again, and the learners, which after a restore repeat the committed steps since a checkpoint.
 * Both put a whole iteration together (advantages are whitened over all of it), so payloads live and die by iteration:
 *
 *   an experience that some step listed, whatever became of it, stays until its iteration is committed and no step
 *   of that iteration would be repeated from the oldest state kept
 *
 * What no step ever listed is nobody's input and goes as soon as it is dropped.
 */
import type { ExperienceId } from "../../rl/types.js";
import type { DurableState, ExperienceEntry } from "./durable.js";
import { compareExperienceIds, iterationOf } from "./experience-id.js";

/** Whether the payload outlives the buffer. */
export const isListed = (entry: ExperienceEntry): boolean => entry.listings > 0;

/**
 * Retained ids nobody can ask for once `committedIteration` is committed and everything up to step `keptFrom` is kept.
 * Without checkpoints a stage retains all it has trained: a commit looks only at the iterations that it commits, which
 * the newest steps are of. Those before were looked at when they were committed, and the steps that repeat them stay.
 */
export function releasable(
  durable: DurableState,
  { committedIteration = durable.committedIteration, keptFrom = durable.keptFrom },
): ExperienceId[] {
  const { retained } = durable;
  const isNew = (iteration: number): boolean =>
    keptFrom > durable.keptFrom || iteration > durable.committedIteration;
  return [...retained.iterations()]
    .filter((iteration) => iteration <= committedIteration && isNew(iteration))
    .filter((iteration) => !isRepeated(durable, iteration, keptFrom))
    .flatMap((iteration) => [...retained.of(iteration)]);
}

/** Would a state that stands at `keptFrom` have a step of the iteration done again? */
function isRepeated({ manifests }: DurableState, iteration: number, keptFrom: number): boolean {
  for (let at = manifests.length - 1; at >= 0 && manifests[at].step > keptFrom; at--) {
    const { outcome, experienceIds } = manifests[at];
    if (outcome === "committed" && experienceIds.some((id) => iterationOf(id) === iteration)) return true;
  }
  return false;
}

/** The iteration's experiences, as the train loop got them, in id order; as long as a step may still need them. */
export function collectedIds({ experiences, retained }: DurableState, iteration: number): ExperienceId[] {
  const ids = new Set<ExperienceId>();
  for (const [id, entry] of experiences)
    if (entry.iteration === iteration && (entry.status === "buffered" || isListed(entry))) ids.add(id);
  for (const id of retained.of(iteration)) ids.add(id);
  return [...ids].sort(compareExperienceIds);
}

/** Ids whose payload may still be read. */
export function livePayloadIds({ experiences, retained }: DurableState): Set<ExperienceId> {
  const ids = new Set<ExperienceId>(retained);
  for (const [id, entry] of experiences) if (entry.status === "buffered") ids.add(id);
  return ids;
}
