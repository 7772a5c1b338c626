/** Which settings of a run may change when it is continued: those that say where and how fast, not what is computed. */
import { configError } from "../shared/errors.js";
import { configSchema, type Config } from "./schema.js";

/** Fields, and groups of them. Whatever is not named here can change a result, be it in the last bit. */
const MAY_CHANGE = new Set([
  "stages",
  "checkpoint",
  "eval.samples",
  "engine.recompute",
  ...[
    ...["rollouts", "learners", "minLearners", "memoryCheck", "maxTaskAttempts", "hedgeFactor"],
    ...["host", "port", "httpPort", "tokenFile", "tls", "insecure", "bulkChannel", "bulkPort", "allReduce"],
    ...["maxArtifactBytes", "maxConnectionsPerAddress", "maxConnections"],
    ...["servers", "replicas", "tokenFile", "caFile", "leaseTtlMs", "advertise"].map(
      (key) => `durable.${key}`,
    ),
  ].map((key) => `cluster.${key}`),
]);

const TIME_LIMIT = /^cluster\.\w+Ms$/;

/** The name is a label, unless the run's streams in NATS are found by it. */
const mayChange = (path: string, { cluster: { durable } }: Config): boolean =>
  MAY_CHANGE.has(path) ||
  TIME_LIMIT.test(path) ||
  (path === "name" && (durable.type === "local" || durable.run !== null));

/**
 * @param was   what the run was started with, as it was stored
 * @param where it was stored
 * @throws {TroupeError} CONFIG naming every field with another value that results depend on
 */
export function refuseDrift(was: unknown, now: Config, where: string): void {
  // A release that knows more fields than the one that stored it means their defaults.
  const drift = differences("", configSchema.safeParse(was).data ?? was, now, now);
  if (drift.length === 0) return;
  throw configError(
    `the run in ${where} was started with other settings:\n${drift.map((line) => `  ${line}`).join("\n")}\n` +
      "Use the same configuration, name another --run-dir, or pass --allow-drift to go on with the new values.",
  );
}

function differences(path: string, was: unknown, is: unknown, config: Config): string[] {
  if (mayChange(path, config)) return [];
  if (isGroup(was) && isGroup(is)) {
    const keys = [...new Set([...Object.keys(was), ...Object.keys(is)])];
    return keys.flatMap((key) =>
      differences(path === "" ? key : `${path}.${key}`, was[key], is[key], config),
    );
  }
  const [before, now] = [JSON.stringify(was), JSON.stringify(is)];
  return before === now ? [] : [`${path}: was ${before ?? "unset"}, is now ${now ?? "unset"}`];
}

const isGroup = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
