/** What registered workers told about themselves: for people and for Prometheus. Decides nothing. */
import type { EventBus } from "../observability/progress.js";
import type { WorkerRole } from "../shared/roles.js";

export interface WorkerCard {
  readonly workerId: string;
  readonly incarnation: number;
  readonly role: WorkerRole;
  readonly host: string;
  readonly pid: number;
  /** host:port */
  readonly metricsAddress: string;
  readonly joinedAtMs: number;
  lastHeardAtMs: number;
  policyVersion: number;
  restarts: number;
  activity: string;
}

export class WorkerDirectory {
  private readonly cards = new Map<string, WorkerCard>();
  private readonly restartsById = new Map<string, number>();

  constructor(private readonly bus: EventBus) {}

  join(
    card: Pick<WorkerCard, "workerId" | "incarnation" | "role" | "host" | "pid" | "metricsAddress">,
  ): void {
    const before = this.cards.get(card.workerId);
    const isRestart = before === undefined ? this.restartsById.has(card.workerId) : before.pid !== card.pid;
    const restarts =
      (this.restartsById.get(card.workerId) ?? -1) + (isRestart || before === undefined ? 1 : 0);
    this.restartsById.set(card.workerId, Math.max(0, restarts));
    const now = Date.now();
    this.cards.set(card.workerId, {
      ...card,
      joinedAtMs: now,
      lastHeardAtMs: now,
      policyVersion: -1,
      restarts,
      activity: "",
    });
    if (before !== undefined && !isRestart) return; // the same process came back after a broken connection
    const port = Number(card.metricsAddress.split(":").at(-1) ?? 0);
    const { workerId, role, pid, host } = card;
    if (isRestart)
      this.bus.publish({
        type: "worker-restarted",
        workerId,
        role,
        pid,
        host,
        port,
        restarts,
        reason: "registered again",
      });
    else this.bus.publish({ type: "worker-joined", workerId, role, pid, host, port });
  }

  heard(workerId: string, policyVersion: number | undefined): void {
    const card = this.cards.get(workerId);
    if (card === undefined) return;
    card.lastHeardAtMs = Date.now();
    if (policyVersion !== undefined) card.policyVersion = policyVersion;
  }

  /** @param incarnation a newer process of that name is not meant */
  lost(workerId: string, incarnation: number, reason: string): void {
    const card = this.cards.get(workerId);
    if (card?.incarnation !== incarnation) return;
    this.cards.delete(workerId);
    this.bus.publish({ type: "worker-lost", workerId, role: card.role, reason });
  }

  left(workerId: string, incarnation: number): void {
    if (this.cards.get(workerId)?.incarnation === incarnation) this.cards.delete(workerId);
  }

  get(workerId: string): WorkerCard | undefined {
    return this.cards.get(workerId);
  }

  list(): readonly WorkerCard[] {
    return [...this.cards.values()].sort((a, b) => (a.workerId < b.workerId ? -1 : 1));
  }

  /** A name no registered worker has. */
  nextName(role: WorkerRole): string {
    for (let i = 0; ; i++) if (!this.cards.has(`${role}-${i}`)) return `${role}-${i}`;
  }
}
