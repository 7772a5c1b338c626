/** How many servers keep a copy of what there is already, against what the configuration wants. */
import type { JetStreamManager, StreamInfo } from "@nats-io/jetstream";
import { configError, describeError } from "../../shared/errors.js";
import { isPassing } from "./nats-connection.js";

/**
 * Gives a stream more copies. Fewer it is not given: whoever stands by with an old configuration would take from a run
 * what it relies on.
 * @throws {TroupeError} CONFIG for fewer copies, or more than the servers can keep
 */
export async function matchReplicas(
  manager: JetStreamManager,
  { config: { name, num_replicas: kept }, cluster }: StreamInfo,
  wanted: number,
): Promise<void> {
  if (kept === wanted) return;
  if (kept > wanted)
    throw configError(
      `NATS keeps ${kept} copies of ${name}, cluster.durable.replicas is ${wanted}: set it to ${kept}, or lower what is kept first (nats stream edit ${name} --replicas ${wanted})`,
    );
  const refused = (why: string, cause?: unknown) =>
    configError(
      `NATS keeps ${kept} ${kept === 1 ? "copy" : "copies"} of ${name} and cannot make it ${wanted} (${why}); start a cluster of at least ${wanted} servers, or set cluster.durable.replicas to ${kept}`,
      { cause },
    );
  // A server on its own would take the number and keep one copy.
  if (cluster === undefined) throw refused("the server is not part of a cluster");
  try {
    await manager.streams.update(name, { num_replicas: wanted });
  } catch (error) {
    if (isPassing(error)) throw error;
    throw refused(describeError(error), error);
  }
}
