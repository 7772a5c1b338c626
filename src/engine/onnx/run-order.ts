/** What a run uses, by identity. */
export interface Claim {
  readonly reads: readonly object[];
  readonly writes: readonly object[];
  /** Nothing may run beside it. */
  readonly isAlone: boolean;
}

interface Entry {
  readonly claim: Claim;
  readonly start: () => void;
}

/**
 * Lets runs overlap where nobody can tell: at most `lanes` at once, and none before an earlier one whose values it
 * would see or change.
 */
export class RunOrder {
  readonly #waiting: Entry[] = [];
  readonly #running = new Set<Entry>();
  #whenIdle: (() => void)[] = [];

  constructor(readonly lanes: number) {}

  run<T>(claim: Claim, work: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const entry: Entry = {
        claim,
        start: () => {
          const done = work().finally(() => {
            this.#running.delete(entry);
            this.#startNext();
          });
          done.then(resolve, reject);
        },
      };
      this.#waiting.push(entry);
      this.#startNext();
    });
  }

  /** Resolves when no run is under way or waiting. */
  async idle(): Promise<void> {
    if (this.#running.size + this.#waiting.length === 0) return;
    await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
  }

  #startNext(): void {
    const earlier = [...this.#running];
    for (const entry of [...this.#waiting]) {
      if (this.#running.size >= this.lanes) break;
      if (!earlier.some(({ claim }) => areInOrder(claim, entry.claim))) {
        this.#waiting.splice(this.#waiting.indexOf(entry), 1);
        this.#running.add(entry);
        entry.start();
      }
      earlier.push(entry);
    }
    if (this.#running.size + this.#waiting.length === 0) {
      for (const resolve of this.#whenIdle.splice(0)) resolve();
    }
  }
}

/** The second must wait for the first. */
function areInOrder(first: Claim, second: Claim): boolean {
  if (first.isAlone || second.isAlone) return true;
  const meet = (a: readonly object[], b: readonly object[]) => a.some((one) => b.includes(one));
  return (
    meet(first.writes, second.reads) || meet(first.writes, second.writes) || meet(first.reads, second.writes)
  );
}
