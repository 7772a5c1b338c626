/** Prompts that will never be answered: told with their reason, and no more than a run can do without. */
import type { ErrorCode } from "../../shared/errors.js";
import type { ExperienceId } from "../../rl/types.js";
import type { ExperiencesGivenUp } from "./effects.js";
import type { Outbox } from "./outbox.js";
import type { CoordinatorState } from "./state.js";

type GivenUpReason = ExperiencesGivenUp["reason"];

/** So few are no share of anything. */
const FEW = 10;
/** Of all that were asked for. */
const LARGEST_SHARE = 0.01;

/** A run that goes on without them would train on what happens to work. */
const STOPS: Readonly<Record<Exclude<GivenUpReason, "overCapacity">, { code: ErrorCode; what: string }>> = {
  poison: {
    code: "DATA",
    what: "made every worker fail that was given them (poison); see the workers' logs",
  },
  nonfinite: {
    code: "NUMERIC",
    what: "were answered with NaN or infinity (nonfinite): the policy, the reference, the critic or the reward model is broken",
  },
};

export function giveUp(
  state: CoordinatorState,
  experienceIds: readonly ExperienceId[],
  reason: GivenUpReason,
  out: Outbox,
): void {
  out.record({ type: "ExperiencesAbandoned", experienceIds, reason });
  out.send({ type: "ExperiencesGivenUp", experienceIds, reason });
  if (reason === "overCapacity") return;
  const { requested, abandoned } = state.durable.counts;
  const count = abandoned[reason];
  if (count <= FEW || count <= LARGEST_SHARE * requested) return;
  const { code, what } = STOPS[reason];
  out.stop(code, `${count} of ${requested} prompts ${what}; dropped.jsonl names them`);
}
