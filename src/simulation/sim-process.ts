/** What every simulated worker process shares: dying, restarting, being stopped, and joining the coordinator. */
import type { CoordinatorEvent, Effect, LearnerPosition, StartStep } from "../coordinator/core/index.js";
import type { SimCoordinator } from "./sim-coordinator.js";
import { SimLife } from "./sim-life.js";
import type { World } from "./world.js";
import type { WorkerRole } from "../shared/roles.js";

export const HEARTBEAT_MS = 250;
const RETRY_MS = 300;

/** Coordinator to worker: the core's effects, and what the shell's bulk paths carry. */
export type ToWorker =
  | Effect
  | { readonly type: "Weights"; readonly policyVersion: number; readonly parameters: number }
  | {
      readonly type: "Reduced";
      readonly generation: number;
      readonly step: number;
      readonly gradient: number;
      readonly isFinite: boolean;
    }
  /** Where all members of the step can reach each other, they sum among themselves. */
  | (StartStep & { readonly isSharded: boolean })
  | { readonly type: "Average"; readonly generation: number; readonly weight: number }
  | { readonly type: "StopTraining"; readonly generation: number }
  | { readonly type: "ReadParameters"; readonly step: number }
  | { readonly type: "BatchContents"; readonly generation: number; readonly contents: readonly number[] };

export abstract class SimProcess {
  incarnation: number | null = null;
  slowness = 1;
  /** The coordinator that it joined. */
  private joined: SimCoordinator | null = null;
  private readonly life: SimLife;
  private requests = 0;
  private requestId = "";
  private lastAnswerMs = 0;

  constructor(
    protected readonly world: World,
    readonly workerId: string,
    readonly role: WorkerRole,
  ) {
    this.life = new SimLife(world.scheduler);
  }

  get isAlive(): boolean {
    return this.life.isAlive;
  }

  get isPaused(): boolean {
    return this.life.isPaused;
  }

  start(): void {
    this.life.begin();
    this.incarnation = null;
    this.joined = null;
    this.reset();
    this.register();
    this.every(HEARTBEAT_MS, () => this.beat());
  }

  /** SIGKILL: memory is gone; the connection's end is seen by the coordinator, or not (power cut). */
  kill(isSeen: boolean): void {
    if (!this.isAlive) return;
    this.life.end();
    const { workerId, incarnation } = this;
    if (isSeen && incarnation !== null) this.send({ type: "WorkerDisconnected", workerId, incarnation });
  }

  pause(): void {
    this.life.pause();
  }

  resume(): void {
    this.life.resume();
  }

  drain(): void {
    if (this.isAlive && this.incarnation !== null) {
      this.send({ type: "WorkerDraining", workerId: this.workerId, incarnation: this.incarnation });
    }
  }

  receive(message: ToWorker, from: SimCoordinator): void {
    this.life.whenRunning(() => this.handleCommon(message, from));
  }

  /** The one at the other end of its connection, as long as there is one; otherwise whoever directs the run. */
  protected get coordinator(): SimCoordinator {
    return this.joined?.isAlive ? this.joined : this.world.coordinator;
  }

  /** Runs later in this life of the process; a stopped process runs it when it is resumed. */
  later(delayMs: number, run: () => void): void {
    this.life.later(delayMs, run);
  }

  protected every(periodMs: number, run: () => void): void {
    this.later(periodMs, () => {
      run();
      this.every(periodMs, run);
    });
  }

  protected send(event: CoordinatorEvent, contents?: ReadonlyMap<string, number>): void {
    this.toCoordinator((coordinator) => coordinator.receive(event, contents));
  }

  protected toCoordinator(deliver: (coordinator: SimCoordinator) => void): void {
    const { coordinator } = this;
    this.world.network.fromWorker(this.workerId, () => deliver(coordinator));
  }

  /** Signed with the present incarnation; nothing is sent while there is none. */
  signed(
    make: (signature: { workerId: string; incarnation: number }) => CoordinatorEvent,
    contents?: ReadonlyMap<string, number>,
  ): void {
    if (this.incarnation === null) return;
    this.send(make({ workerId: this.workerId, incarnation: this.incarnation }), contents);
  }

  protected abstract reset(): void;
  /** Dropped by the coordinator: forget assignments, keep state. */
  protected abstract detached(): void;
  protected abstract handle(message: ToWorker): void;
  protected abstract heartbeat(): void;
  protected abstract position(): LearnerPosition | null;
  protected abstract heldPolicy(): number;

  private register(): void {
    this.requestId = `${this.workerId}-${this.life.number}-${this.requests++}`;
    this.sendRegistration(this.requestId);
  }

  private sendRegistration(requestId: string): void {
    if (requestId !== this.requestId || this.incarnation !== null) return;
    this.send({
      type: "WorkerRegistered",
      workerId: this.workerId,
      role: this.role,
      requestId,
      position: this.position(),
      policyVersion: this.heldPolicy(),
    });
    this.later(RETRY_MS, () => this.sendRegistration(requestId));
  }

  private beat(): void {
    if (this.incarnation === null) return;
    // Nothing heard for two leases: the coordinator is gone or has forgotten us.
    if (this.world.scheduler.nowMs - this.lastAnswerMs > 2 * this.world.config.leaseTtlMs) this.rejoin();
    else this.heartbeat();
  }

  protected fenced(): void {
    this.rejoin();
  }

  private rejoin(): void {
    this.incarnation = null;
    this.joined = null;
    this.detached();
    this.register();
  }

  private handleCommon(message: ToWorker, from: SimCoordinator): void {
    // The stream of a coordinator that it left is closed.
    if (from !== this.coordinator && message.type !== "AcceptWorker") return;
    switch (message.type) {
      case "AcceptWorker":
        if (message.requestId !== this.requestId || this.incarnation !== null) return;
        this.incarnation = message.incarnation;
        this.joined = from;
        this.lastAnswerMs = this.world.scheduler.nowMs;
        this.heartbeat();
        return;
      case "FenceWorker":
        if (message.incarnation === this.incarnation) this.fenced();
        return;
      case "ReleaseWorker":
        if (message.incarnation !== this.incarnation) return;
        this.life.end();
        this.world.scheduler.after(200, () => this.start());
        return;
      case "AckHeartbeat":
        if (message.incarnation === this.incarnation) this.lastAnswerMs = this.world.scheduler.nowMs;
        break;
      default:
    }
    this.handle(message);
  }
}
