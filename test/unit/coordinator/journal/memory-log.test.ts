import { describe, expect, it } from "vitest";
import { MemoryLog } from "../../../../src/coordinator/journal/index.js";
import { describeDurableLog, epoch } from "./durable-log-contract.js";

describeDurableLog("memory log", () => ({ open: async () => new MemoryLog(), survivesClose: false }));

describe("memory log", () => {
  it("loses in a crash exactly what was not synced", () => {
    const log = new MemoryLog();
    log.write([epoch(1)]);
    log.sync();
    log.write([epoch(2)]);
    log.crash();
    log.sync();
    expect(log.recoverNow().epoch).toBe(1);
  });
});
