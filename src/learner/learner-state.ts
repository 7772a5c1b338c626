/** What a learner holds. Lives as long as the process, over reconnects. */
import type { ComputePool } from "../worker/compute-pool.js";
import type { Holdings } from "../worker/coordinator-link.js";
import { protocolError } from "../shared/errors.js";
import type * as learnerThread from "./learner-thread.js";
import type { VotedUpdate } from "./optimizer-step.js";
import type { OuterStepRequest } from "./parameter-round.js";
import { ShardGradients } from "./shard-gradients.js";

/** Where the parameters stand: after the last optimizer step applied in a stage; `digest` see ./state-digest. */
export interface LearnerPosition {
  readonly stage: string;
  readonly step: number;
  readonly digest: string;
}

/** Equal keys are equal models with equal settings. */
export interface ModelsSetUp {
  readonly key: string;
  readonly parameterCount: number;
}

interface HeldVote {
  readonly about: { readonly step: number; readonly digest: string };
  readonly update: HeldUpdate;
}

/** Summed gradients, or the average of a round. */
export type HeldUpdate = VotedUpdate | OuterStepRequest;

export class LearnerState {
  private where: LearnerPosition | null = null;
  /**
   * The update of the next step, from its vote until its decision is heard; kept over reconnects, because the decision
   * may have been made while nobody could tell it.
   */
  private voted: HeldVote | null = null;
  private models: ModelsSetUp | null = null;

  readonly shardGradients: ShardGradients;

  constructor(
    readonly compute: ComputePool<typeof learnerThread>,
    readonly scratchDir: string,
  ) {
    this.shardGradients = new ShardGradients(compute, () => this.where);
  }

  /** Null until the first stage is set up, and while the parameters are being changed outside a step. */
  get position(): LearnerPosition | null {
    return this.where;
  }

  /** What a learner tells of itself when it registers. */
  holdings(): Holdings {
    return { position: this.where && { ...this.where, voted: this.voted?.about ?? null } };
  }

  /** The parameters stand nowhere: they are being replaced, or belong to another run. */
  forget(): void {
    this.where = null;
    this.voted = null;
    this.models = null;
  }

  /** @param models what the compute thread was just set up with; a step makes it something else */
  moveTo(position: LearnerPosition, models: ModelsSetUp | null = null): void {
    this.where = position;
    this.models = models;
  }

  /** What the compute thread was set up with, when nothing was trained since. */
  get modelsSetUp(): ModelsSetUp | null {
    return this.models;
  }

  keepVote(about: HeldVote["about"], update: HeldUpdate): void {
    this.voted = { about, update };
  }

  dropVote(): void {
    this.voted = null;
  }

  /**
   * The update voted for, to be applied now; nothing is held until `moveTo`.
   * @throws {TroupeError} PROTOCOL when no such vote is held
   */
  takeVoted({ stage, step, digest }: LearnerPosition): HeldUpdate {
    const { where, voted } = this;
    if (where?.stage !== stage || voted?.about.step !== step || voted.about.digest !== digest)
      throw protocolError(`step ${step} of ${stage}: this learner holds no update it voted for`);
    this.forget();
    return voted.update;
  }
}
