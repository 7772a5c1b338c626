/** A process that can be stopped and go on, or die and start again: what it was about to do waits, or is forgotten. */
import type { Scheduler } from "./scheduler.js";

export class SimLife {
  isAlive = false;
  isPaused = false;
  /** Counts lives, so that timers of a dead process do nothing. */
  private life = 0;
  private backlog: (() => void)[] = [];

  constructor(private readonly scheduler: Scheduler) {}

  begin(): void {
    this.life += 1;
    this.isAlive = true;
    this.isPaused = false;
    this.backlog = [];
  }

  end(): void {
    this.life += 1;
    this.isAlive = false;
    this.isPaused = false;
  }

  /** SIGSTOP, or a machine that hangs: it hears everything later, all at once. */
  pause(): void {
    this.isPaused = this.isAlive;
  }

  resume(): void {
    this.isPaused = false;
    const waiting = this.backlog;
    this.backlog = [];
    for (const run of waiting) this.whenRunning(run);
  }

  /** Runs in this life of the process, once it is not stopped any more. */
  whenRunning(run: () => void): void {
    if (!this.isAlive) return;
    if (this.isPaused) this.backlog.push(this.inThisLife(run));
    else run();
  }

  later(delayMs: number, run: () => void): void {
    this.scheduler.after(
      delayMs,
      this.inThisLife(() => this.whenRunning(run)),
    );
  }

  /** The same as `run` until the process dies; then nothing. */
  inThisLife(run: () => void): () => void {
    const { life } = this;
    return () => {
      if (life === this.life) run();
    };
  }

  /** Which life of the process this is. */
  get number(): number {
    return this.life;
  }

  isSameLife(number: number): boolean {
    return this.isAlive && number === this.life;
  }
}
