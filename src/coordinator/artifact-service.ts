/** Fetch and Publish: files between the artifact store and the workers, in chunks, with the stream's own backpressure. */
import { once } from "node:events";
import type { ArtifactChunk__Output } from "../rpc/generated/troupe/v1/ArtifactChunk.js";
import type { ArtifactServiceHandlers } from "../rpc/generated/troupe/v1/ArtifactService.js";
import { toServiceError } from "../rpc/status.js";
import { protocolError } from "../shared/errors.js";
import type { ArtifactRef, ArtifactStore } from "./artifact-store.js";
import { checkSender } from "./membership-service.js";

export function makeArtifactService(store: ArtifactStore, runId: string): ArtifactServiceHandlers {
  return {
    Fetch: (call) => {
      (async () => {
        checkSender(call.request.sender, runId);
        for await (const data of store.read(call.request.name)) {
          if (call.cancelled) return;
          if (!call.write({ data })) await once(call, "drain");
        }
        call.end();
      })().catch((error: unknown) => call.emit("error", toServiceError(error)));
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
        checkSender(sender, runId);
        const stored: ArtifactRef = await store.receive(ref, restOf(messages));
        callback(null, { ref: stored });
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
