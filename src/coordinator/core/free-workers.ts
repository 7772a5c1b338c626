/**
 * Rollout workers that may be given another task, so that handing one out does not cost a look at every member. Fewest
 * tasks first; among equals, who holds the newer policy, then who has been in that position longest.
 */
import type { Member } from "./state.js";

interface Place {
  readonly load: number;
  readonly policyVersion: number;
}

export class FreeWorkers {
  /** By policy version; by number of tasks held; in the order they got there. */
  private readonly byVersion = new Map<number, Set<Member>[]>();
  private readonly places = new Map<Member, Place>();
  /** Came in, or changed their policy, since they were last looked at. */
  private readonly news = new Set<Member>();
  private newest = -1;

  get size(): number {
    return this.places.size;
  }

  /** Whether one of them holds no task. */
  get hasIdle(): boolean {
    for (const [idle] of this.byVersion.values()) if (idle.size > 0) return true;
    return false;
  }

  /** To be called whenever role, state, credits, policy or leases of a member have changed. */
  update(member: Member): void {
    const before = this.places.get(member);
    const { policyVersion } = member;
    const load = hasCredit(member) ? member.leases.size : undefined;
    if (load === before?.load && (before === undefined || before.policyVersion === policyVersion)) return;
    this.remove(member, before);
    if (load === undefined) {
      this.news.delete(member);
      return;
    }
    if (before?.policyVersion !== policyVersion) this.news.add(member);
    this.places.set(member, { load, policyVersion });
    let byLoad = this.byVersion.get(policyVersion);
    if (byLoad === undefined) this.byVersion.set(policyVersion, (byLoad = []));
    while (byLoad.length <= load) byLoad.push(new Set());
    byLoad[load].add(member);
  }

  /** The member is gone. */
  delete(member: Member): void {
    this.remove(member, this.places.get(member));
    this.news.delete(member);
  }

  /** Those that hold a policy from `oldest` to `newest`. */
  *holding(oldest: number, newest: number): Iterable<Member> {
    const versions = [...this.byVersion.keys()].filter((version) => version >= oldest && version <= newest);
    versions.sort((a, b) => b - a);
    const lists = versions.map((version) => this.byVersion.get(version)!);
    const loads = Math.max(0, ...lists.map((byLoad) => byLoad.length));
    for (let load = 0; load < loads; load++) for (const byLoad of lists) yield* byLoad[load] ?? [];
  }

  /** Those that hold no task; the same order. */
  *idle(policyVersion: number): Iterable<Member> {
    yield* this.byVersion.get(policyVersion)?.[0] ?? [];
  }

  /** Those that hold another policy than `newest`, each once for as long as both stay what they are. */
  takeOutdated(newest: number): Member[] {
    if (newest !== this.newest) for (const member of this.places.keys()) this.news.add(member);
    this.newest = newest;
    if (this.news.size === 0) return [];
    const outdated = [...this.news].filter((member) => member.policyVersion !== newest);
    this.news.clear();
    return outdated;
  }

  private remove(member: Member, place: Place | undefined): void {
    if (place === undefined) return;
    this.places.delete(member);
    const byLoad = this.byVersion.get(place.policyVersion)!;
    byLoad[place.load].delete(member);
    if (byLoad.every(({ size }) => size === 0)) this.byVersion.delete(place.policyVersion);
  }
}

const hasCredit = (member: Member): boolean =>
  member.role === "rollout" &&
  member.state === "ready" &&
  !member.isReserved &&
  member.leases.size < member.credits;
