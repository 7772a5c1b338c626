/** Pairs of processes, by incarnation, that failed to reach each other; for as long as both are who they were. */

/** The coordinator's end of a link; incarnations are greater. */
export const COORDINATOR = -1;

export class BrokenLinks {
  private readonly pairs: (readonly [number, number])[] = [];

  /** @returns false when it was known */
  note(a: number, b: number): boolean {
    if (this.pairs.some((pair) => pair.includes(a) && pair.includes(b))) return false;
    this.pairs.push([a, b]);
    return true;
  }

  /** Whether two of these ends cannot reach each other; with `to`, whether one of them cannot reach that. */
  among(ends: readonly number[], to?: number): boolean {
    const all = to === undefined ? ends : [...ends, to];
    return this.pairs.some(
      (pair) => pair.every((end) => all.includes(end)) && (to === undefined || pair.includes(to)),
    );
  }
}
