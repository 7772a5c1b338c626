/**
 * When this process should end: Ctrl-C, SIGTERM, or, for a process the launcher started, the launcher being gone. The
 * first request asks commands to stop by aborting a signal; a second one, or patience running out, ends the process.
 */
import { TroupeError } from "../shared/errors.js";
import { PARENT_PIPE_VARIABLE } from "../launcher/child.js";

export interface Lifetime {
  /** Aborts when the process should end. Reading it takes over the signals; without it they have their usual effect. */
  readonly signal: AbortSignal;
  /** The signal that asked first. */
  readonly endedBy: NodeJS.Signals | undefined;
}

/** Bash reports a process ended by signal n as 128 + n. */
const SIGNAL_EXIT_CODES = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
type EndingSignal = keyof typeof SIGNAL_EXIT_CODES;
/** How long a child may take to end itself once its launcher is gone. */
const ORPHAN_GRACE_MS = 8_000;

export class ProcessLifetime implements Lifetime {
  readonly #controller = new AbortController();
  #isWatching = false;
  #endedBy: NodeJS.Signals | undefined;

  /** @param exit ends the process at once */
  constructor(readonly exit: (code: number) => void) {}

  get signal(): AbortSignal {
    this.#watch();
    return this.#controller.signal;
  }

  get endedBy(): NodeJS.Signals | undefined {
    return this.#endedBy;
  }

  #watch(): void {
    if (this.#isWatching) return;
    this.#isWatching = true;
    const isChild = process.env[PARENT_PIPE_VARIABLE] === "1";
    for (const name of Object.keys(SIGNAL_EXIT_CODES) as EndingSignal[]) {
      // A terminal sends Ctrl-C to the launcher and to its children; only the launcher decides what follows.
      process.on(name, isChild && name !== "SIGTERM" ? () => undefined : () => this.#onSignal(name));
    }
    if (isChild) this.#watchParent();
  }

  #onSignal(name: EndingSignal): void {
    if (this.#controller.signal.aborted) return this.exit(SIGNAL_EXIT_CODES[name]);
    this.#endedBy = name;
    this.#controller.abort(new TroupeError("CANCELLED", `stopped by ${name}`));
  }

  #watchParent(): void {
    const onGone = () => {
      if (!this.#controller.signal.aborted) {
        this.#controller.abort(new TroupeError("CANCELLED", "the launcher is gone"));
      }
      setTimeout(() => this.exit(SIGNAL_EXIT_CODES.SIGTERM), ORPHAN_GRACE_MS).unref();
    };
    process.stdin.on("end", onGone).on("error", onGone).on("close", onGone);
    process.stdin.resume();
    // The pipe must not keep a process alive that is done.
    (process.stdin as typeof process.stdin & { unref?: () => void }).unref?.();
  }
}
