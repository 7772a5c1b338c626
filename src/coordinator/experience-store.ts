/** The experiences themselves, by id: in memory while they are used, in the journal until a checkpoint covers them. */
import type { ExperienceId, ScoredRollout } from "../rl/types.js";
import { decodeExperience } from "../rpc/codec/experience-bytes.js";
import { storageError } from "../shared/errors.js";
import { iterationOf } from "./core/index.js";
import type { DurableLog } from "./journal/index.js";

export class ExperienceStore {
  private readonly experiences = new Map<ExperienceId, ScoredRollout>();

  constructor(private readonly log: DurableLog) {}

  put(rollout: ScoredRollout): void {
    this.experiences.set(rollout.experienceId, rollout);
  }

  async getAll(ids: readonly ExperienceId[]): Promise<ScoredRollout[]> {
    const found = ids.map((id) => this.experiences.get(id));
    for (let i = found.indexOf(undefined); i >= 0; i = found.indexOf(undefined, i))
      found[i] = await this.read(ids[i]);
    return found as ScoredRollout[];
  }

  /**
   * Frees memory, also that of experiences which were dropped before any step listed them; the journal keeps what a
   * repeated step would need.
   */
  releaseUpTo(iteration: number): void {
    for (const id of this.experiences.keys()) if (iterationOf(id) <= iteration) this.experiences.delete(id);
  }

  private async read(id: ExperienceId): Promise<ScoredRollout> {
    const bytes = await this.log.getPayload(id);
    if (bytes === undefined)
      throw storageError(
        `experience ${id} is admitted but its data is not in the journal: the run directory is damaged`,
      );
    const { rollout } = decodeExperience(bytes); // on disk is what came over the wire
    this.experiences.set(id, rollout);
    return rollout;
  }
}
