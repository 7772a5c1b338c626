import { describe, expect, it } from "vitest";
import { emptyDurableState } from "../../../../src/coordinator/core/index.js";
import {
  decodeSnapshot,
  encodeSnapshot,
  frame,
  unframe,
} from "../../../../src/coordinator/journal/encoding.js";

describe("a snapshot", () => {
  it("of a release without a field or a count gets what a new run has there, and keeps the rest", () => {
    const state = emptyDurableState();
    Object.assign(state, { epoch: 4, policyVersion: 7 });
    state.counts.admitted = 3;
    state.retained.add("0/0/0");
    const [head, ...lines] = Buffer.from(unframe("s", encodeSnapshot({ sequence: 9, state })))
      .toString("utf8")
      .split("\n");
    const { keptFrom, olderCheckpoints, ...plain } = JSON.parse(head) as Record<string, unknown>;
    expect({ keptFrom, olderCheckpoints }).toEqual({ keptFrom: 0, olderCheckpoints: [] });
    const { trainedByStaleness, ...counts } = plain.counts as Record<string, unknown>;
    expect(trainedByStaleness).toEqual({});
    const old = [JSON.stringify({ ...plain, counts }), ...lines].join("\n");
    expect(decodeSnapshot("s", frame(Buffer.from(old)))).toEqual({ sequence: 9, state });
  });

  it("of a release that wrote it in one line is read as one in parts", () => {
    const state = emptyDurableState();
    state.collections.set(2, { iteration: 2, policyVersion: 1, tasks: [] });
    state.retained.add("1/0/0");
    const { collections, experiences, retained, ...plain } = state;
    const body = {
      sequence: 9,
      ...plain,
      collections: [...collections.values()],
      experiences: [...experiences],
      retained: [...retained],
    };
    expect(decodeSnapshot("s", frame(Buffer.from(JSON.stringify(body))))).toEqual({ sequence: 9, state });
  });
});
