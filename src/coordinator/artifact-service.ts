/** Fetch and Publish: files between the artifact store and the workers, in chunks, with the stream's own backpressure. */
import { once } from "node:events";
import type { ArtifactChunk__Output } from "../rpc/generated/troupe/v1/ArtifactChunk.js";
import type { ArtifactServiceHandlers } from "../rpc/generated/troupe/v1/ArtifactService.js";
import { toServiceError } from "../rpc/status.js";
import { protocolError } from "../shared/errors.js";
import type { ArtifactRef, ArtifactStore } from "./artifact-store.js";
import type { CoreHost } from "./core-host.js";
import { checkIsMember, checkSender } from "./sender.js";

export interface ArtifactOptions {
  readonly store: ArtifactStore;
  readonly host: CoreHost;
  readonly runId: string;
  /** Largest file a learner may announce; more than it announced is refused while it arrives. */
  readonly maxBytes: number;
}

export function makeArtifactService(options: ArtifactOptions): ArtifactServiceHandlers {
  const { store, host, runId, maxBytes } = options;
  return {
    Fetch: (call) => {
      // A cancelled call never drains: without this its file would stay open.
      const cancelled = new AbortController();
      call.once("cancelled", () => cancelled.abort());
      (async () => {
        checkSender(call.request.sender, runId);
        for await (const data of store.read(call.request.name)) {
          if (call.cancelled) return;
          if (!call.write({ data })) await once(call, "drain", { signal: cancelled.signal });
        }
        call.end();
      })().catch((error: unknown) => {
        if (!call.cancelled) call.emit("error", toServiceError(error));
      });
    },
    Publish: (call, callback) => {
      (async () => {
        const messages = call[Symbol.asyncIterator]() as AsyncIterator<ArtifactChunk__Output>;
        const first = await messages.next();
        const { ref, sender } = (first.value as ArtifactChunk__Output | undefined) ?? {
          ref: null,
          sender: null,
        };
        if (first.done || ref === null)
          throw protocolError("ArtifactChunk.ref: expected in the first chunk, got none");
        const from = checkSender(sender, runId);
        // Also at its end: an upload takes a while, and what a learner sends that was given up meanwhile must not count.
        const admit = () => checkIsMember(["learner"], from, host);
        admit();
        if (!(ref.sizeBytes <= maxBytes))
          throw protocolError(
            `artifact ${ref.name}: expected at most cluster.maxArtifactBytes ${maxBytes}, ${ref.sizeBytes} are announced`,
          );
        const stored: ArtifactRef | undefined =
          ref.localPath === ""
            ? await store.receive(ref, restOf(messages), admit)
            : await store.takeOver(ref, ref.localPath, admit);
        callback(null, stored === undefined ? {} : { ref: stored });
      })().catch((error: unknown) => callback(toServiceError(error)));
    },
  };
}

async function* restOf(messages: AsyncIterator<ArtifactChunk__Output>): AsyncGenerator<Uint8Array> {
  for (;;) {
    const next = await messages.next();
    if (next.done) return;
    yield next.value.data;
  }
}
