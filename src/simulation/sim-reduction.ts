/**
 * The simulated bulk path of one step by way of the coordinator: gathers the members' gradients, adds them up, hands out
 * the sum. It knows who is missing, not why, and blames nobody: whose gradients are late the core finds out.
 */
import type { StartStep, StepMember } from "../coordinator/core/index.js";
import type { SimCoordinator } from "./sim-coordinator.js";
import { reduceShards } from "./toy-model.js";
import type { World } from "./world.js";

interface Sum {
  readonly generation: number;
  readonly step: number;
  readonly members: readonly StepMember[];
  readonly gradients: (readonly number[] | null)[];
  result: number | null;
}

export class SimReduction {
  private sum: Sum | null = null;

  constructor(
    private readonly world: World,
    private readonly coordinator: SimCoordinator,
  ) {}

  /** Of the step under way. */
  get generation(): number | undefined {
    return this.sum?.generation;
  }

  get members(): readonly StepMember[] {
    return this.sum?.members ?? [];
  }

  open({ generation, step, members }: Pick<StartStep, "generation" | "step" | "members">): void {
    this.sum = { generation, step, members, gradients: members.map(() => null), result: null };
  }

  close(): void {
    this.sum = null;
  }

  receive(
    workerId: string,
    incarnation: number,
    generation: number,
    step: number,
    gradients: readonly number[],
  ): void {
    const { sum } = this;
    if (sum?.generation !== generation || sum.step !== step) return;
    const rank = sum.members.findIndex(
      (member) => member.workerId === workerId && member.incarnation === incarnation,
    );
    if (rank < 0) return;
    sum.gradients[rank] ??= gradients;
    if (sum.result === null && sum.gradients.every((part) => part !== null)) {
      sum.result = reduceShards(sum.gradients.flatMap((part) => part ?? []));
      for (const member of sum.members) this.send(sum, member.workerId);
    } else this.send(sum, workerId);
  }

  private send({ generation, step, result }: Sum, workerId: string): void {
    if (result === null) return;
    const isFinite = !this.world.scenario.nonFiniteSteps.includes(step);
    this.coordinator.send(workerId, { type: "Reduced", generation, step, gradient: result, isFinite });
  }
}
