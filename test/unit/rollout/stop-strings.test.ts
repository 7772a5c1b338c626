import { describe, expect, it } from "vitest";
import { makeStopTable } from "../../../src/data/stop-table.js";
import { fromStopTable, toStopTable } from "../../../src/rpc/codec/stop-table.js";
import { StopDetector } from "../../../src/rollout/stop-strings.js";

const bytesOf = (text: string) => new TextEncoder().encode(text);

/** Pieces as tokens 0, 1, 2, …; the table goes over the wire and back. */
function detectorOf(stops: readonly string[], pieces: readonly (string | Uint8Array)[]) {
  const tokens = new Map(
    pieces.map((piece, id) => [id, typeof piece === "string" ? bytesOf(piece) : piece] as const),
  );
  const { states, next, tokenIds, classes } = toStopTable(makeStopTable(stops, tokens));
  const table = fromStopTable({ states, next, tokenIds, classes } as never);
  return { table, tokens, detector: new StopDetector(table) };
}

/** How many tokens are written when the answer ends; null when it does not. */
function endOf(detector: StopDetector, ids: readonly number[]): number | null {
  let state = 0;
  for (const [at, id] of ids.entries()) {
    state = detector.next(state, id);
    if (detector.isFinal(state)) return at + 1;
  }
  return null;
}

const endOfPieces = (stops: readonly string[], pieces: readonly (string | Uint8Array)[]) =>
  endOf(
    detectorOf(stops, pieces).detector,
    pieces.map((_, id) => id),
  );

describe("stop strings", () => {
  it("are found inside one token and across several", () => {
    expect(endOfPieces(["\n\nHuman:"], ["x\n\nHuman: y", "z"])).toBe(1);
    expect(endOfPieces(["\n\nHuman:"], ["ok.\n", "\n", "Hu", "man", ": hi", "z"])).toBe(5);
    expect(endOfPieces(["\n\nHuman:"], ["ok.\n", "\n", "Hu", "-", "man", ":"])).toBeNull();
  });

  it("are found where a failed beginning overlaps the real one", () => {
    expect(endOfPieces(["aab"], ["a", "a", "a", "b", "c"])).toBe(4);
    expect(endOfPieces(["\n\nH"], ["\n\n", "\n", "H"])).toBe(3);
    expect(endOfPieces(["abcabd"], ["abc", "abc", "abd"])).toBe(3);
  });

  it("are found whichever of several comes first, also one inside another's beginning", () => {
    expect(endOfPieces(["User:", "END"], ["the E", "N", "D", "User:"])).toBe(3);
    expect(endOfPieces(["abcd", "bc"], ["a", "b", "c", "d"])).toBe(3);
    expect(endOfPieces(["ab", "abab"], ["a", "b", "a"])).toBe(2);
  });

  it("are found when their characters are cut between tokens, and not by half a character", () => {
    const [first, ...rest] = bytesOf("。");
    expect(endOfPieces(["。"], ["好", Uint8Array.of(first), Uint8Array.from(rest)])).toBe(3);
    expect(endOfPieces(["。"], [Uint8Array.of(first), "x", Uint8Array.from(rest)])).toBeNull();
    expect(endOfPieces(["é"], ["è", "e"])).toBeNull();
  });

  it("are not broken by a token that writes nothing, and are by one that nothing names", () => {
    const { detector } = detectorOf(["ab"], ["a", "b", ""]);
    expect(endOf(detector, [0, 2, 1])).toBe(3);
    expect(endOf(detector, [0, 77, 1])).toBeNull();
  });

  it("end every answer of small words exactly where a search of its text says", () => {
    const stops = ["aba", "bb", "caab", "é"];
    const accent = bytesOf("é");
    const pieces = ["a", "b", "c", "ab", "ba", "ca", "aa", "cab", "", accent.slice(0, 1), accent.slice(1)];
    const { detector, tokens } = detectorOf(stops, pieces);
    let seed = 1;
    let found = 0;
    for (let trial = 0; trial < 3000; trial++) {
      const ids = Array.from({ length: 12 }, () => {
        seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
        return Math.floor((seed / 2 ** 32) * pieces.length);
      });
      const contains = (count: number) => {
        const written = Buffer.concat(ids.slice(0, count).map((id) => tokens.get(id)!));
        return stops.some((stop) => written.includes(stop));
      };
      const first = ids.findIndex((_, at) => contains(at + 1));
      expect(endOf(detector, ids), ids.join()).toBe(first === -1 ? null : first + 1);
      if (first !== -1) found++;
    }
    expect(found).toBeGreaterThan(1000);
    expect(found).toBeLessThan(3000);
  });

  it("cost a table of the tokens that matter only", () => {
    const words = Array.from({ length: 5000 }, (_, i) => `w${i}`);
    const { table } = detectorOf(["\n\nHuman:"], [...words, "\n", "x\n", "Human"]);
    expect([...table.tokenIds]).toEqual([5000, 5001, 5002]);
    expect(table.states).toBe(9);
  });

  it("a table with a state or class that does not exist is refused", () => {
    const table = detectorOf(["ab"], ["a", "b"]).table;
    const broken = (change: object) => () => fromStopTable(toStopTable({ ...table, ...change }) as never);
    expect(broken({})).not.toThrow();
    expect(broken({ states: 0 })).toThrow(/at least 2/);
    expect(broken({ next: Int32Array.from(table.next, (state) => state + 2) })).toThrow(/states from 0 to 2/);
    expect(broken({ classes: table.classes.map(() => 99) })).toThrow(/classes from 0/);
    expect(broken({ classes: Int32Array.of(1) })).toThrow(/StopTable.classes/);
  });
});
