/** The same seed gives the same parameters and optimizer state, to the last bit, however many processes share the work. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PATIENCE_MS, RunFolder } from "../helpers/tiny-run.js";

const folder = new RunFolder();
const hashOf = async (rollouts: number, learners: number, seed = 7): Promise<string> => {
  const sets = [`cluster.rollouts=${rollouts}`, `cluster.learners=${learners}`, `seed=${seed}`];
  const run = await folder.start(
    `r${rollouts}-l${learners}-s${seed}`,
    // Enough for every learner to take part in steps of each stage, and for one update to follow another.
    [...sets, "ppo.iterations=2"].flatMap((set) => ["--set", set]),
  );
  return (await run.finish()).stateSha256;
};

let alone: string;
beforeAll(async () => {
  alone = await hashOf(1, 1);
}, PATIENCE_MS);
afterAll(() => folder.remove());

describe("the final state of a run", { timeout: PATIENCE_MS }, () => {
  it.each([
    [2, 2],
    [1, 3],
    [2, 4],
  ])(
    "is that of one rollout worker and one learner with %i rollout workers and %i learners",
    async (rollouts, learners) => {
      expect(await hashOf(rollouts, learners)).toBe(alone);
    },
  );

  it("is another one with another seed", async () => {
    expect(await hashOf(1, 1, 8)).not.toBe(alone);
  });
});
