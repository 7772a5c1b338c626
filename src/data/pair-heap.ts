/** A pair of neighbouring symbols with how often it occurs. */
export interface PairCount {
  readonly left: number;
  readonly right: number;
  readonly count: number;
}

/** Most frequent first; among equals the smaller symbols, so that the order never depends on the input's order. */
function isBefore(a: PairCount, b: PairCount): boolean {
  if (a.count !== b.count) return a.count > b.count;
  return a.left !== b.left ? a.left < b.left : a.right < b.right;
}

/** A binary heap of pair counts. Counts go stale as merges happen; the trainer checks each one it takes. */
export class PairHeap {
  readonly #items: PairCount[] = [];

  get size(): number {
    return this.#items.length;
  }

  push(item: PairCount): void {
    const items = this.#items;
    let at = items.length;
    items.push(item);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(item, items[parent])) break;
      items[at] = items[parent];
      at = parent;
    }
    items[at] = item;
  }

  pop(): PairCount | undefined {
    const items = this.#items;
    const first = items[0];
    const last = items.pop();
    if (last === undefined || items.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && isBefore(items[child + 1], items[child])) child++;
      if (!isBefore(items[child], last)) break;
      items[at] = items[child];
      at = child;
    }
    items[at] = last;
    return first;
  }
}
