/**
 * Who may call what, and how large a message of it may be: one line per method of the server. A method without a line
 * is refused, and the server does not start with one.
 */
export const CALLER_ROLES = ["rollout", "learner", "control"] as const;

/** What a join token lets its holder be: one of the worker roles, or a person or tool that steers the run. */
export type CallerRole = (typeof CALLER_ROLES)[number];

export interface MethodRule {
  readonly roles: readonly CallerRole[];
  /** Largest request message, serialised. */
  readonly maxRequestBytes: number;
}

/** Questions, answers and heartbeats: no tensors. */
const CONTROL_BYTES = 256 << 10;
/** A batch of rows or of finished experiences: R tokens take about 17 bytes each. */
export const EXPERIENCE_BYTES = 16 << 20;
/** A piece of a file or of a gradient; senders cut at CHUNK_BYTES. */
const PIECE_BYTES = 4 << 20;

/** The largest any method takes: what the transport itself refuses while it still reads the length. */
export const MAX_REQUEST_BYTES = EXPERIENCE_BYTES;

const workers: MethodRule = { roles: ["rollout", "learner"], maxRequestBytes: CONTROL_BYTES };
const control: MethodRule = { roles: ["control"], maxRequestBytes: CONTROL_BYTES };
const anyone: MethodRule = { roles: CALLER_ROLES, maxRequestBytes: CONTROL_BYTES };

/** By full method path. */
export const METHOD_RULES: Readonly<Record<string, MethodRule>> = {
  "/troupe.v1.Membership/Register": workers,
  "/troupe.v1.Membership/Heartbeat": workers,
  "/troupe.v1.Membership/Leave": workers,
  "/troupe.v1.RolloutService/Perform": { roles: ["rollout"], maxRequestBytes: EXPERIENCE_BYTES },
  "/troupe.v1.LearnerService/Perform": { roles: ["learner"], maxRequestBytes: EXPERIENCE_BYTES },
  "/troupe.v1.LearnerService/AllReduce": { roles: ["learner"], maxRequestBytes: PIECE_BYTES },
  "/troupe.v1.ArtifactService/Fetch": workers,
  "/troupe.v1.ArtifactService/Publish": { roles: ["learner"], maxRequestBytes: PIECE_BYTES },
  "/troupe.v1.ControlService/Status": control,
  "/troupe.v1.ControlService/Scale": control,
  "/troupe.v1.ControlService/Watch": control,
  "/troupe.v1.ControlService/Stop": control,
  "/grpc.health.v1.Health/Check": anyone,
  "/grpc.health.v1.Health/Watch": anyone,
  "/grpc.health.v1.Health/List": anyone,
  "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": control,
  "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": control,
};
