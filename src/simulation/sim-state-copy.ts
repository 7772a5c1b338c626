/** How a simulated learner comes to the group's state: from its vote, the start, a checkpoint, or a copy of another's. */
import type { HealLearner } from "../coordinator/core/index.js";
import type { SimLearner } from "./sim-learner.js";
import { hashOf, INITIAL_PARAMETERS } from "./toy-model.js";
import type { World } from "./world.js";

const RETRY_MS = 150;
const RETRIES = 4;

export class SimStateCopy {
  private order: HealLearner | null = null;
  private lastHealId = 0;
  /** The order whose state has arrived and is being loaded. */
  private loading: HealLearner | null = null;

  constructor(
    private readonly world: World,
    private readonly owner: SimLearner,
  ) {}

  get isUnderWay(): boolean {
    return this.order !== null;
  }

  /** Heal numbers start again with every coordinator. */
  detached(): void {
    this.lastHealId = 0;
    this.order = null;
  }

  /** @returns whether the order is a new one */
  take(order: HealLearner): boolean {
    if (this.lastHealId >= order.healId) return false;
    this.lastHealId = order.healId;
    this.order = order;
    return true;
  }

  begin(order: HealLearner, attempt = 0): void {
    const { world, owner } = this;
    if (this.order !== order || this.loading === order) return;
    const { source } = order;
    if (source.kind === "vote") return;
    if (source.kind === "initial") return this.load(order, INITIAL_PARAMETERS);
    if (source.kind === "checkpoint") return this.load(order, world.checkpoints.get(source.checkpointId)!);
    if (attempt === RETRIES) return this.report(order, "peer is silent");
    const peer = world.learners.find((other) => other.workerId === source.workerId);
    world.network.between(owner.workerId, source.workerId, () => peer?.stateCopy.lend(owner, order));
    owner.later(RETRY_MS, () => this.begin(order, attempt + 1));
  }

  /** The order cannot be carried out here. */
  fail(reason: string): void {
    const { order } = this;
    this.order = null;
    if (order !== null) this.report(order, reason);
  }

  private report({ healId }: HealLearner, reason: string): void {
    this.owner.signed((me) => ({ type: "LearnerHealFailed", ...me, healId, reason }));
  }

  /** A peer asks for the state at a step; silence when this learner is not there. */
  private lend(borrower: SimLearner, order: HealLearner): void {
    const { owner, world } = this;
    if (!owner.isAlive || owner.isPaused || !owner.holds(order)) return;
    const { parameters } = owner;
    world.network.between(owner.workerId, borrower.workerId, () =>
      borrower.stateCopy.receive(order, parameters),
    );
  }

  private receive(order: HealLearner, parameters: number): void {
    const { owner } = this;
    if (!owner.isAlive || owner.isPaused || this.order !== order || this.loading === order) return;
    owner.signed((me) => ({ type: "StateLent", ...me, healId: order.healId }));
    this.load(order, parameters);
  }

  private load(order: HealLearner, parameters: number): void {
    this.loading = order;
    this.owner.later(this.world.scenario.copyMs, () => {
      if (this.order === order) this.healed(order, parameters);
    });
  }

  healed(order: HealLearner, parameters: number): void {
    this.owner.adopt(order, parameters);
    this.order = null;
    const position = {
      stage: order.stage,
      step: order.step,
      hash: order.step === 0 || this.world.scenario.rounds !== null ? "" : hashOf(parameters),
    };
    // A lost report is found out by the heal's deadline.
    this.owner.signed((me) => ({ type: "LearnerHealed", ...me, healId: order.healId, position }));
  }
}
