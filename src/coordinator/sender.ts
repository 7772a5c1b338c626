/** Whom a message comes from: every message of a worker is signed, and its signature checked before it is used. */
import type { Sender__Output } from "../rpc/generated/troupe/v1/Sender.js";
import { PermissionError } from "../rpc/status.js";
import { TroupeError, protocolError } from "../shared/errors.js";
import type { CoreHost } from "./core-host.js";

/** Refuses messages of another run; older epochs and incarnations are the core's business. */
export function checkSender(sender: Sender__Output | null, runId: string): Sender__Output {
  if (sender === null) throw protocolError("sender: expected a value, got none");
  if (sender.runId !== runId) {
    throw new TroupeError(
      "FENCED",
      `sender.run_id: expected ${runId}, got ${sender.runId}; this worker belongs to another run`,
    );
  }
  return sender;
}

/** Refuses whoever is not a live worker of one of the roles: unregistered, replaced, lost, or of an older epoch. */
export function checkIsMember(allowed: readonly string[], sender: Sender__Output, host: CoreHost): void {
  checkSpeaksAs(allowed, sender, host);
  const { workerId, incarnation } = sender;
  if (host.state.volatile.members.get(workerId)?.incarnation !== incarnation)
    throw new TroupeError(
      "FENCED",
      `sender.incarnation: ${incarnation} of ${workerId} is no member any more; register again`,
    );
}

/**
 * Refuses a sender that is registered under another role than the one it speaks as. Who is not registered at all, or
 * was replaced, is the core's business.
 */
export function checkSpeaksAs(
  allowed: readonly string[],
  { workerId, incarnation }: Sender__Output,
  { state }: CoreHost,
): void {
  const member = state.volatile.members.get(workerId);
  if (member === undefined) return;
  if (!allowed.includes(member.role))
    throw new PermissionError(
      `${workerId} is registered as ${member.role}; this call is for ${allowed.join(" or ")} workers`,
    );
  if (incarnation > member.incarnation)
    throw new TroupeError(
      "FENCED",
      `sender.incarnation: ${workerId} never got ${incarnation}; register first`,
    );
}
