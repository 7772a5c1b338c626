import type { ExperienceId } from "../../rl/types.js";

/** The iteration of `"<iteration>/<promptIndex>/<sampleIndex>"`; NaN when the id is not of that form. */
export function iterationOf(experienceId: ExperienceId): number {
  const end = experienceId.indexOf("/");
  return end < 1 ? NaN : Number(experienceId.slice(0, end));
}

/** Orders ids by iteration, prompt, sample as numbers ("2/0/0" before "10/0/0"); total, for batch order. */
export function compareExperienceIds(a: ExperienceId, b: ExperienceId): number {
  const left = a.split("/");
  const right = b.split("/");
  for (let i = 0; i < left.length && i < right.length; i++) {
    const difference = Number(left[i]) - Number(right[i]);
    if (difference !== 0 && !Number.isNaN(difference)) return difference;
  }
  return a < b ? -1 : a > b ? 1 : 0;
}
