/** The wire contract in proto/, loaded once, with the types that `npm run gen:proto` wrote from the same files. */
import { join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import * as protoLoader from "@grpc/proto-loader";
import { packageRoot } from "../shared/paths.js";
import type { ProtoGrpcType as ArtifactProto } from "./generated/artifact.js";
import type { ProtoGrpcType as ControlProto } from "./generated/control.js";
import type { ProtoGrpcType as LearnerProto } from "./generated/learner.js";
import type { ProtoGrpcType as MembershipProto } from "./generated/membership.js";
import type { ProtoGrpcType as RolloutProto } from "./generated/rollout.js";

const PROTO_FILES = ["membership", "rollout", "learner", "artifact", "control"].map(
  (name) => `troupe/v1/${name}.proto`,
);

// These flags are the ones the types were generated with; change both together.
export const packageDefinition = protoLoader.loadSync(PROTO_FILES, {
  includeDirs: [join(packageRoot, "proto")],
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});

type TroupeV1 = ArtifactProto["troupe"]["v1"] &
  ControlProto["troupe"]["v1"] &
  LearnerProto["troupe"]["v1"] &
  MembershipProto["troupe"]["v1"] &
  RolloutProto["troupe"]["v1"];

/** Service constructors and definitions, e.g. `troupe.v1.Membership`. */
export const troupe = (
  grpc.loadPackageDefinition(packageDefinition) as unknown as { troupe: { v1: TroupeV1 } }
).troupe;

/** Version of the contract; a coordinator refuses workers that speak another one. */
export const PROTOCOL_VERSION = 5;
