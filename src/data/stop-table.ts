/**
 * Stop strings for a worker that knows token ids only: an automaton over the bytes of the answer, folded over the bytes
 * of each token.
 *
 * The automaton is Aho and Corasick's: its state is the longest suffix of the answer that begins a stop string; state 0
 * is none, the last one is "a stop string has been written". A token maps states to states; tokens that map all of them
 * alike are one class, and class 0, of nearly the whole vocabulary, leads to state 0 from everywhere.
 * @see Aho, Corasick 1975, Efficient string matching (Algorithms 2, 3, 4)
 */

/** Read by `StopDetector`. S states, C classes. */
export interface StopTable {
  /** S ≥ 2; S − 1 ends the answer. */
  readonly states: number;
  /** `[C × S]` the state after a token of class c in state s, at c · S + s; row 0 is all 0. */
  readonly next: Int32Array;
  /** Tokens whose class is not 0. */
  readonly tokenIds: Int32Array;
  /** `[tokenIds.length]` their classes, 1 to C − 1. */
  readonly classes: Int32Array;
}

/**
 * @param stopStrings at least one, none empty
 * @param tokenBytes  bytes by token id
 */
export function makeStopTable(
  stopStrings: readonly string[],
  tokenBytes: ReadonlyMap<number, Uint8Array>,
): StopTable {
  const { states, step } = automatonOf(stopStrings.map((stop) => new TextEncoder().encode(stop)));
  const classOf = new Map<string, number>([[new Array<number>(states).fill(0).join(), 0]]);
  const next = new Array<number>(states).fill(0);
  const tokenIds: number[] = [];
  const classes: number[] = [];
  // What has been written stays written: a final state left again would be lost between two tokens.
  const final = states - 1;
  const follow = (from: number, bytes: Uint8Array): number => {
    let state = from;
    for (let i = 1; i < bytes.length && state !== final; i++) state = step[state * 256 + bytes[i]];
    return state;
  };
  const afterByte = Array.from({ length: 256 }, (_, byte) =>
    Int32Array.from({ length: final }, (_, state) => step[state * 256 + byte]),
  );
  const imagesOf = afterByte.map((after) => [...new Set(after)]);
  for (const [id, bytes] of tokenBytes) {
    let row: number[];
    if (bytes.length === 0) row = Array.from({ length: states }, (_, state) => state);
    else {
      // One byte leaves few states of many: only those are followed through the rest of the token.
      const ends = new Map(imagesOf[bytes[0]].map((image) => [image, follow(image, bytes)]));
      if ([...ends.values()].every((end) => end === 0)) continue;
      row = Array.from(afterByte[bytes[0]], (image) => ends.get(image)!);
    }
    row[final] = 0; // never asked: the answer has ended
    const key = row.join();
    let known = classOf.get(key);
    if (known === undefined) {
      known = classOf.size;
      classOf.set(key, known);
      next.push(...row);
    }
    tokenIds.push(id);
    classes.push(known);
  }
  return {
    states,
    next: Int32Array.from(next),
    tokenIds: Int32Array.from(tokenIds),
    classes: Int32Array.from(classes),
  };
}

/** @returns `step` `[states × 256]`, from state and byte to state */
function automatonOf(stops: readonly Uint8Array[]): { readonly states: number; readonly step: Int32Array } {
  const children: Map<number, number>[] = [new Map()];
  const isFinal = [false];
  for (const stop of stops) {
    let node = 0;
    for (const byte of stop) {
      let child = children[node].get(byte);
      if (child === undefined) {
        child = children.push(new Map()) - 1;
        isFinal.push(false);
        children[node].set(byte, child);
      }
      node = child;
    }
    isFinal[node] = true;
  }
  // Breadth first, so that a node's suffix is finished before the node.
  const count = children.length;
  const full = new Int32Array(count * 256);
  const suffix = new Int32Array(count);
  const queue = [0];
  for (const node of queue) {
    isFinal[node] ||= isFinal[suffix[node]];
    for (let byte = 0; byte < 256; byte++) {
      const fallback = node === 0 ? 0 : full[suffix[node] * 256 + byte];
      const child = children[node].get(byte);
      full[node * 256 + byte] = child ?? fallback;
      if (child === undefined) continue;
      suffix[child] = fallback;
      queue.push(child);
    }
  }
  // Nodes that end a stop string, or lie behind one, become the one final state.
  const kept = queue.filter((node) => !isFinal[node]);
  const states = kept.length + 1;
  const numberOf = new Int32Array(count).fill(states - 1);
  kept.forEach((node, number) => (numberOf[node] = number));
  const step = new Int32Array(states * 256).fill(states - 1);
  kept.forEach((node, number) => {
    for (let byte = 0; byte < 256; byte++) step[number * 256 + byte] = numberOf[full[node * 256 + byte]];
  });
  return { states, step };
}
