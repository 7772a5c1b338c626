/** Links between the coordinator and its workers, and between learners: they lose, double, delay and reorder. */
import type { Random } from "./random.js";
import { FAULTS_END_MS, type NetworkProfile } from "./scenario.js";
import type { Scheduler } from "./scheduler.js";

export class Network {
  /** `"workerId>"` (out of the worker) or `">workerId"` (into it) -> when the cut ends. */
  private readonly cuts = new Map<string, number>();

  constructor(
    private readonly scheduler: Scheduler,
    private readonly random: Random,
    private readonly profile: NetworkProfile,
  ) {}

  cut(workerId: string, direction: "in" | "out" | "now", durationMs: number): void {
    const untilMs = this.scheduler.nowMs + durationMs;
    if (direction !== "in") this.cuts.set(`${workerId}>`, untilMs);
    if (direction !== "out") this.cuts.set(`>${workerId}`, untilMs);
  }

  /** Between two learners only: both still reach the coordinator. */
  cutPair(a: string, b: string, durationMs: number): void {
    const untilMs = this.scheduler.nowMs + durationMs;
    this.cuts.set(`${a}|${b}`, untilMs).set(`${b}|${a}`, untilMs);
  }

  isCut(workerId: string): boolean {
    return this.isCutNow(`${workerId}>`) || this.isCutNow(`>${workerId}`);
  }

  /** Worker to coordinator. */
  fromWorker(workerId: string, deliver: () => void): void {
    if (!this.isCutNow(`${workerId}>`)) this.transmit(deliver);
  }

  /** Coordinator to worker. */
  toWorker(workerId: string, deliver: () => void): void {
    if (!this.isCutNow(`>${workerId}`)) this.transmit(deliver);
  }

  /** Worker to worker. */
  between(from: string, to: string, deliver: () => void): void {
    if (!this.isCutNow(`${from}>`) && !this.isCutNow(`>${to}`)) this.transmit(deliver);
  }

  /** The same, over connections that learners open to each other. */
  amongPeers(from: string, to: string, deliver: () => void): void {
    if (!this.isCutNow(`${from}|${to}`)) this.between(from, to, deliver);
  }

  private isCutNow(link: string): boolean {
    if (this.cuts.size === 0) return false;
    return (this.cuts.get(link) ?? 0) > this.scheduler.nowMs;
  }

  private transmit(deliver: () => void): void {
    const { drop, duplicate, delayMs, jitterMs } = this.profile;
    const isClean = this.scheduler.nowMs > FAULTS_END_MS;
    const jitter = (): number => (jitterMs > 0 && !isClean ? this.random.between(0, jitterMs) : 0);
    if (!isClean && this.random.chance(drop)) return;
    this.scheduler.after(delayMs + jitter(), deliver);
    if (!isClean && this.random.chance(duplicate)) this.scheduler.after(delayMs + jitter(), deliver);
  }
}
