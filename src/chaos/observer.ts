/** Watches a run from outside, over the same calls as `troupe status`, and notes what must never be seen. */
import { readCoordinatorFile } from "../shared/coordinator-file.js";
import { ControlClient, type RunStatus } from "../rpc/control-client.js";
import { sleep } from "../shared/abort.js";
import type { Violation } from "./violation.js";

/** A step that was seen to be done. */
export interface Progress {
  /** Wall clock, Unix ms. */
  readonly atMs: number;
  readonly stage: string;
  readonly step: number;
}

const POLL_MS = 5;
/** A coordinator that does not answer within this is away, e.g. stopped. */
const ANSWER_MS = 500;
const STAGES = ["sft", "reward", "ppo"];

export class RunObserver {
  /** The newest answer; undefined while nobody answers. */
  latest: RunStatus | undefined;
  readonly progress: Progress[] = [];
  readonly violations: Violation[] = [];
  /** When something last changed, monotonic ms. */
  changedAtMs = performance.now();
  private control: ControlClient | undefined;
  private before: RunStatus | undefined;

  constructor(
    private readonly runDir: string,
    private readonly signal: AbortSignal,
  ) {}

  /** Polls until the signal aborts. */
  async run(): Promise<void> {
    while (!this.signal.aborted) {
      const status = await this.ask();
      if (status !== undefined) this.note(status);
      this.latest = status;
      await sleep(POLL_MS, this.signal);
    }
    this.control?.close();
  }

  /** Waits until an answer satisfies `isSo`. @returns false when that took too long or the run ended first */
  async until(isSo: (status: RunStatus) => boolean, patienceMs: number): Promise<boolean> {
    const deadlineMs = performance.now() + patienceMs;
    while (!this.signal.aborted && performance.now() < deadlineMs) {
      if (this.latest !== undefined && isSo(this.latest)) return true;
      await sleep(POLL_MS, this.signal);
    }
    return false;
  }

  private async ask(): Promise<RunStatus | undefined> {
    if (this.control === undefined) {
      const file = await readCoordinatorFile(this.runDir);
      if (file === undefined) return undefined;
      this.control = new ControlClient(file.grpcAddress);
    }
    const control = this.control;
    const patience = new AbortController();
    const answer = control.status().catch(() => undefined);
    const status = await Promise.race([answer, sleep(ANSWER_MS, patience.signal)]);
    patience.abort();
    if (status === undefined) {
      // A new channel tries at once; the old one would wait for its backoff.
      control.close();
      this.control = undefined;
    }
    return status ?? undefined;
  }

  private note(status: RunStatus): void {
    const { before } = this;
    this.before = status;
    const { admitted = 0, trained = 0, dropped = 0, buffered = 0 } = status.ledger ?? {};
    if (admitted !== trained + dropped + buffered)
      this.report(
        "ledger",
        `admitted ${admitted} ≠ trained ${trained} + dropped ${dropped} + buffered ${buffered}`,
      );
    if (before === undefined) return;
    if (status.epoch < before.epoch)
      this.report("epoch", `epoch ${before.epoch} was followed by ${status.epoch}`);
    if (status.policyVersion < before.policyVersion && status.stage === before.stage)
      this.report(
        "version",
        `policy version ${before.policyVersion} was followed by ${status.policyVersion}`,
      );
    const [was, is] = [before, status].map(({ stage, optimizerStep }) => ({ stage, step: optimizerStep }));
    const isSameStage = was.stage === is.stage;
    if (isSameStage && is.step < was.step)
      this.report("lost step", `step ${was.step} of ${was.stage} was done, then only ${is.step}`);
    if (STAGES.includes(is.stage) && STAGES.indexOf(is.stage) < STAGES.indexOf(was.stage))
      this.report("lost step", `stage ${was.stage} was followed by ${is.stage}`);
    if (is.step > was.step || !isSameStage) {
      this.progress.push({ atMs: Date.now(), ...is });
      this.changedAtMs = performance.now();
    }
    const isOtherwiseNew =
      status.epoch !== before.epoch ||
      status.workers.length !== before.workers.length ||
      Number(admitted) !== Number(before.ledger?.admitted ?? 0);
    if (isOtherwiseNew) this.changedAtMs = performance.now();
  }

  private report(invariant: Violation["invariant"], detail: string): void {
    this.violations.push({ invariant, detail });
  }
}
