/** A set of experience ids that knows which of them belong to an iteration. */
import type { ExperienceId } from "../../rl/types.js";
import { iterationOf } from "./experience-id.js";

const NONE: ReadonlySet<ExperienceId> = new Set();

export class RetainedIds implements Iterable<ExperienceId> {
  private readonly byIteration = new Map<number, Set<ExperienceId>>();

  add(id: ExperienceId): void {
    const iteration = iterationOf(id);
    const ids = this.byIteration.get(iteration);
    if (ids === undefined) this.byIteration.set(iteration, new Set([id]));
    else ids.add(id);
  }

  delete(id: ExperienceId): void {
    const iteration = iterationOf(id);
    const ids = this.byIteration.get(iteration);
    ids?.delete(id);
    if (ids?.size === 0) this.byIteration.delete(iteration);
  }

  clear(): void {
    this.byIteration.clear();
  }

  /** Iterations that have ids here. */
  iterations(): Iterable<number> {
    return this.byIteration.keys();
  }

  of(iteration: number): ReadonlySet<ExperienceId> {
    return this.byIteration.get(iteration) ?? NONE;
  }

  *[Symbol.iterator](): Generator<ExperienceId> {
    for (const ids of this.byIteration.values()) yield* ids;
  }
}
