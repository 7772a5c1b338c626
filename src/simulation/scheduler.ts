/** The virtual clock: a queue of callbacks by time; equal times run in the order they were added. */
interface Entry {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

export class Scheduler {
  nowMs = 1;
  executed = 0;
  private readonly heap: Entry[] = [];
  private nextOrder = 0;

  after(delayMs: number, run: () => void): void {
    const heap = this.heap;
    const entry: Entry = { atMs: this.nowMs + delayMs, order: this.nextOrder++, run };
    let i = heap.length;
    heap.push(entry);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!isBefore(entry, heap[parent])) break;
      heap[i] = heap[parent];
      i = parent;
    }
    heap[i] = entry;
  }

  /** Runs until nothing is left, `limitMs` is reached or `isDone` says so. */
  run(limitMs: number, isDone: () => boolean): void {
    while (this.heap.length > 0 && !isDone()) {
      const entry = this.pop();
      if (entry.atMs > limitMs) {
        this.nowMs = limitMs;
        return;
      }
      this.nowMs = entry.atMs;
      this.executed += 1;
      entry.run();
    }
  }

  private pop(): Entry {
    const heap = this.heap;
    const top = heap[0];
    const last = heap.pop()!;
    if (heap.length === 0) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child += 1;
      if (!isBefore(heap[child], last)) break;
      heap[i] = heap[child];
      i = child;
    }
    heap[i] = last;
    return top;
  }
}

const isBefore = (a: Entry, b: Entry): boolean => a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
