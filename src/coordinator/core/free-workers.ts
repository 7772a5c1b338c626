/**
 * Rollout workers that may be given another task, so that handing one out does not cost a look at every member. Fewest
 * tasks first; among equals, who has been in that position longest.
 */
import type { Member } from "./state.js";

export class FreeWorkers {
  /** By number of tasks held; in the order they got there. */
  private readonly byLoad: Set<Member>[] = [];
  private readonly loads = new Map<Member, number>();

  get size(): number {
    return this.loads.size;
  }

  /** To be called whenever role, state, credits or leases of a member have changed. */
  update(member: Member): void {
    const load = hasCredit(member) ? member.leases.size : undefined;
    const before = this.loads.get(member);
    if (load === before) return;
    if (before !== undefined) this.byLoad[before].delete(member);
    if (load === undefined) {
      this.loads.delete(member);
      return;
    }
    this.loads.set(member, load);
    while (this.byLoad.length <= load) this.byLoad.push(new Set());
    this.byLoad[load].add(member);
  }

  /** The member is gone. */
  delete(member: Member): void {
    const load = this.loads.get(member);
    if (load === undefined) return;
    this.byLoad[load].delete(member);
    this.loads.delete(member);
  }

  *[Symbol.iterator](): Iterator<Member> {
    for (const members of this.byLoad) yield* members;
  }
}

const hasCredit = (member: Member): boolean =>
  member.role === "rollout" && member.state === "ready" && member.leases.size < member.credits;
