import { expect, it } from "vitest";
import { historyOf, timeReplay } from "../../../src/chaos/replay-probe.js";
import { applyRecord, emptyDurableState } from "../../../src/coordinator/core/index.js";

it("the journal whose replay is timed is that of a possible run", async () => {
  const state = emptyDurableState();
  for (const record of historyOf(500)) applyRecord(state, record);
  expect(state.counts.trained).toBe(state.counts.admitted);
  expect(state.counts.admitted).toBeGreaterThan(200);
  expect((await timeReplay(500)).records).toBeGreaterThanOrEqual(500);
});
