import { EventEmitter, once } from "node:events";
import { describe, expect, it } from "vitest";
import { makeArtifactService, type ArtifactOptions } from "../../../src/coordinator/artifact-service.js";

describe("a download that its worker gives up", () => {
  it("lets go of the file, though the call never takes more", async () => {
    let isClosed = false;
    const store = {
      async *read() {
        try {
          for (;;) yield new Uint8Array(8);
        } finally {
          isClosed = true;
        }
      },
    };
    const { Fetch } = makeArtifactService({ store, runId: "run" } as unknown as ArtifactOptions);
    const errors: unknown[] = [];
    const call = Object.assign(new EventEmitter(), {
      request: { sender: { workerId: "r1", incarnation: "1", runId: "run" }, name: "policy" },
      cancelled: false,
      write: () => {
        queueMicrotask(() => call.emit("full"));
        return false;
      },
      end: () => errors.push(new Error("ended")),
    });
    call.on("error", (error) => errors.push(error));
    (Fetch as (call: unknown) => void)(call);
    await once(call, "full");
    expect(isClosed).toBe(false);
    call.cancelled = true;
    call.emit("cancelled");
    await expect.poll(() => isClosed).toBe(true);
    expect(errors).toEqual([]);
  });
});
