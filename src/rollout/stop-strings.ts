/** Notices that an answer's text contains a stop string, from its token ids and nothing else. */
import type { StopTable } from "../data/stop-table.js";

/**
 * An answer's state is a number that its owner keeps, 0 before the first token: what is found depends on the answer's
 * own tokens only, not on what else is generated or where.
 */
export class StopDetector {
  private readonly classOf = new Map<number, number>();

  constructor(private readonly table: StopTable) {
    table.tokenIds.forEach((id, i) => this.classOf.set(id, table.classes[i]));
  }

  /** @returns the state after one more token; not to be asked of a state that `isFinal` */
  next(state: number, token: number): number {
    const tokenClass = this.classOf.get(token);
    return tokenClass === undefined ? 0 : this.table.next[tokenClass * this.table.states + state];
  }

  /** True when a stop string has been written. */
  isFinal(state: number): boolean {
    return state === this.table.states - 1;
  }
}
