import { describe, expect, it } from "vitest";
import { CoreHost } from "../../../src/coordinator/core-host.js";
import { DEFAULT_CORE_CONFIG, makeState } from "../../../src/coordinator/core/index.js";
import { MemoryLog } from "../../../src/coordinator/journal/index.js";
import { createLogger } from "../../../src/observability/logger.js";
import { makeDeferred } from "../../../src/shared/abort.js";

const logger = createLogger({ role: "coordinator", level: "silent" });

/** A host whose journal writes when `disk` says so. */
function hostOnSlowDisk() {
  const disk = makeDeferred<void>();
  class SlowLog extends MemoryLog {
    override async append(entries: Parameters<MemoryLog["append"]>[0]): Promise<void> {
      await disk.promise;
      await super.append(entries);
    }
  }
  const failures: unknown[] = [];
  const host = new CoreHost(makeState(DEFAULT_CORE_CONFIG), new SlowLog(), logger, (error) =>
    failures.push(error),
  );
  return { host, disk, failures };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe("what a host tells", () => {
  it("waits until all that was decided before is durable", async () => {
    const { host, disk } = hostOnSlowDisk();
    let isTold = false;
    host.dispatch({ type: "CoordinatorStarted" });
    host.dispatch({ type: "StageStarted", stage: "sft" });
    expect(host.state.durable.stage).toBe("sft");
    host.whenDurable(() => (isTold = true));
    await turn();
    expect(isTold).toBe(false);
    disk.resolve();
    await host.settled();
    expect(isTold).toBe(true);
  });

  it("is told at once when nothing is waiting for the disk", () => {
    const { host } = hostOnSlowDisk();
    let isTold = false;
    host.whenDurable(() => (isTold = true));
    expect(isTold).toBe(true);
  });

  it("is never told when the disk fails", async () => {
    const { host, disk, failures } = hostOnSlowDisk();
    let isTold = false;
    host.dispatch({ type: "CoordinatorStarted" });
    host.whenDurable(() => (isTold = true));
    disk.reject(new Error("disk full"));
    await host.settled();
    host.whenDurable(() => (isTold = true));
    expect(failures).toHaveLength(1);
    expect(isTold).toBe(false);
  });
});
