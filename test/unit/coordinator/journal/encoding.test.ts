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
});
