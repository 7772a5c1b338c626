/**
 * Which collections are asked for: the one that is trained next and, with a staleness bound η above 0, up to η later
 * ones, which rollout workers make while the learners train.
 *
 * When version v is published, iteration v may train on experience of the versions v − η … v. So iteration v + η can be
 * asked for from then on, and no later one: its oldest admissible policy has just come to be.
 */
import type { Prompt, ScoredRollout } from "../rl/types.js";
import { configError } from "../shared/errors.js";
import type { DurableState } from "./core/index.js";
import type { LoopState, Troupe } from "./train-loop.js";

interface Collection {
  readonly iteration: number;
  readonly prompts: readonly Prompt[];
  readonly nextCursor: number;
  /** Oldest version that may sample it. */
  readonly oldestVersion: number;
}

/**
 * Refuses to go on with a lower bound than what is collected already was collected for: those answers would be too old
 * by the time their iteration trains, and a part of the iteration, or all of it, would be missing. A higher one is fine.
 * @throws {TroupeError} CONFIG naming the lowest bound that will do
 */
export function checkStaleness(
  { experiences, policyVersion }: Pick<DurableState, "experiences" | "policyVersion">,
  staleness: number,
): void {
  let needed = 0;
  for (const { status, iteration, policyVersion: sampledBy } of experiences.values()) {
    // What is still open will be sampled by the newest policy there is, at the earliest.
    if (status === "open") needed = Math.max(needed, iteration - Math.max(0, policyVersion));
    if (status === "buffered") needed = Math.max(needed, iteration - sampledBy);
  }
  if (needed <= staleness) return;
  throw configError(
    `ppo.staleness ${staleness}: the run has collected ahead for a bound of ${needed}; go on with ppo.staleness ${needed} or more, or start another run from one of its checkpoints (model.path)`,
  );
}

export class CollectAhead {
  /** Asked for and not taken yet, in order. */
  private readonly asked: Collection[] = [];

  constructor(
    private readonly troupe: Pick<Troupe, "nextPrompts" | "ask" | "perform">,
    private readonly options: { readonly iterations: number; readonly staleness: number },
  ) {}

  /**
   * The rollouts of `state.iteration`, once they are complete; call it with every iteration in turn.
   * @returns nextCursor where the prompts of the iteration after it begin
   */
  async take(state: LoopState): Promise<{ rollouts: ScoredRollout[]; nextCursor: number }> {
    const { iterations, staleness } = this.options;
    for (let ahead = this.asked.length; ahead <= staleness; ahead++) {
      const iteration = state.iteration + ahead;
      if (iteration >= iterations) break;
      const cursor = this.asked.at(-1)?.nextCursor ?? state.promptCursor;
      const { prompts, nextCursor } = this.troupe.nextPrompts(iteration, cursor);
      const oldestVersion = Math.max(0, state.policyVersion + ahead - staleness);
      this.asked.push({ iteration, prompts, nextCursor, oldestVersion });
      if (staleness > 0) this.troupe.ask(iteration, prompts, oldestVersion);
    }
    const { iteration, prompts, nextCursor, oldestVersion } = this.asked.shift() as Collection;
    return { rollouts: await this.troupe.perform(iteration, prompts, oldestVersion), nextCursor };
  }
}
