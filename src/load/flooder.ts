/**
 * A rollout worker that ignores what it was granted: it sends experiences nobody asked for, as fast as its stream takes
 * them or at a given rate. What the coordinator must survive with the memory it has.
 */
import type { ClientDuplexStream } from "@grpc/grpc-js";
import type { RolloutDirective__Output } from "../rpc/generated/troupe/v1/RolloutDirective.js";
import type { RolloutMessage } from "../rpc/generated/troupe/v1/RolloutMessage.js";
import { encodeExperience } from "../rpc/codec/experience-bytes.js";
import { sleep } from "../shared/abort.js";
import { whenDrained } from "../shared/when-drained.js";
import type { Session } from "../worker/coordinator-link.js";

const BATCH_BYTES = 256 << 10;

/**
 * Returns when the session ends.
 * @param responseTokens of every unwanted experience   @param perSecond experiences; 0 = as fast as they are taken
 */
export async function flood(
  { clients, sender, signal }: Session,
  responseTokens: number,
  perSecond: number,
): Promise<void> {
  const call = clients.rollout.perform() as ClientDuplexStream<RolloutMessage, RolloutDirective__Output>;
  const cancel = () => call.cancel();
  signal.addEventListener("abort", cancel, { once: true });
  const column = new Float32Array(responseTokens);
  const bytes = encodeExperience("flood#0", 1, {
    experienceId: "0/0/0",
    promptIndex: 0,
    sampleIndex: 0,
    policyVersion: 0,
    promptIds: new Int32Array(4),
    responseIds: new Int32Array(responseTokens),
    logprobs: column,
    refLogprobs: column,
    values: column,
    score: 0,
    finishReason: "length",
  });
  const experiences = new Array<Buffer>(Math.max(1, Math.floor(BATCH_BYTES / bytes.length))).fill(bytes);
  call.on("error", () => undefined); // the end of the call says it too
  call.resume(); // acknowledgements are read and ignored
  call.write({ sender, ready: { credits: 0 } });
  while (!signal.aborted && call.writable) {
    if (!call.write({ sender, experiences: { experiences } })) await whenDrained(call);
    if (perSecond > 0) await sleep((experiences.length / perSecond) * 1000, signal);
  }
}
