/**
 * π_prox of decoupled PPO: what the policy at the start of an iteration's update says of answers that an older one
 * sampled. The learners compute it with the weights they hold, one forward pass over the stale answers; interpolating
 * between π_behav and π_θ would save the pass, but clips around a policy that never existed.
 *
 * Kept on disk from before the first step until a checkpoint covers the iteration: learners restored from an older
 * state repeat its steps when that policy is long gone, and must do so to the bit.
 */
import { groupsOf } from "../data/batches.js";
import type { Experience, ScoredRollout } from "../rl/types.js";
import type { MicroShard } from "../rpc/codec/shard.js";
import { shapeError } from "../shared/errors.js";
import type { RunContext } from "./run-context.js";

const ROWS_PER_SHARD = 16;
const FOLDER = "proximal";

/** Experience id → its log-probabilities `[R]`, base64 of little-endian float32. */
type Stored = Readonly<Record<string, string>>;

const nameOf = (iteration: number): string => `${FOLDER}/${iteration}`;
const tokensOf = ({ promptIds, responseIds }: ScoredRollout): number => promptIds.length + responseIds.length;

export class ProximalPolicy {
  constructor(private readonly run: Pick<RunContext, "results" | "host" | "learners" | "signal">) {}

  /**
   * @param policyVersion what the learners hold; experience of that version needs nothing
   * @returns the rollouts in the same order, stale ones with `proximalLogprobs`
   */
  async measure(
    iteration: number,
    policyVersion: number,
    rollouts: readonly ScoredRollout[],
  ): Promise<ScoredRollout[]> {
    const stored = await this.run.results.remember(nameOf(iteration), () =>
      this.compute(rollouts.filter((rollout) => rollout.policyVersion < policyVersion)),
    );
    return attach(rollouts, stored);
  }

  /** As `measure` stored it; rollouts of an iteration that was trained without stay as they are. */
  async recall(iteration: number, rollouts: readonly ScoredRollout[]): Promise<ScoredRollout[]> {
    return attach(rollouts, (await this.run.results.recall<Stored>(nameOf(iteration))) ?? {});
  }

  /** Deletes what no repeated step can need: that of committed iterations whose experiences are gone as well. */
  async prune(): Promise<void> {
    const { results, host } = this.run;
    const { retained, committedIteration } = host.state.durable;
    const repeated = new Set(retained.iterations());
    for (const name of await results.namesIn(FOLDER)) {
      const iteration = Number(name);
      if (iteration <= committedIteration && !repeated.has(iteration))
        await results.forget(nameOf(iteration));
    }
  }

  /** Deletes all of it: the stage is over, no step of it is ever repeated. */
  async clear(): Promise<void> {
    await this.run.results.forgetFolder(FOLDER);
  }

  private async compute(stale: readonly ScoredRollout[]): Promise<Stored> {
    const rows = [...stale].sort((a, b) => tokensOf(a) - tokensOf(b)); // rows of similar length share a padded batch
    const shards = groupsOf(rows, ROWS_PER_SHARD).map((group, index): MicroShard => {
      return { index, rows: { kind: "ppo", rows: group.map(unrewarded) } };
    });
    const { logprobs = new Float64Array(0) } = await this.run.learners.evaluate(shards, this.run.signal);
    const expected = rows.reduce((sum, row) => sum + row.responseIds.length, 0);
    if (logprobs.length !== expected)
      throw shapeError(`proximal policy: expected ${expected} log-probabilities, got ${logprobs.length}`);
    const stored: Record<string, string> = {};
    let first = 0;
    for (const { experienceId, responseIds } of rows) {
      stored[experienceId] = encode(logprobs.subarray(first, (first += responseIds.length)));
    }
    return stored;
  }
}

/** Rows as learners take them; what a forward pass has no use for is 0. */
function unrewarded(rollout: ScoredRollout): Experience {
  const zeros = new Float32Array(rollout.responseIds.length);
  const actionMask = new Uint8Array(zeros.length).fill(1);
  return { ...rollout, rewards: zeros, advantages: zeros, returns: zeros, actionMask };
}

function attach(rollouts: readonly ScoredRollout[], stored: Stored): ScoredRollout[] {
  return rollouts.map((rollout) => {
    const text = stored[rollout.experienceId];
    return text === undefined ? rollout : { ...rollout, proximalLogprobs: decode(text) };
  });
}

function encode(values: ArrayLike<number>): string {
  const bytes = Buffer.alloc(4 * values.length);
  for (let i = 0; i < values.length; i++) bytes.writeFloatLE(values[i], 4 * i);
  return bytes.toString("base64");
}

function decode(text: string): Float32Array {
  const bytes = Buffer.from(text, "base64");
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
}
