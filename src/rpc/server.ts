/** The coordinator's gRPC server: every service of the contract plus standard health and reflection. */
import * as grpc from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";
import { HealthImplementation } from "grpc-health-check";
import { configError } from "../shared/errors.js";
import { requireToken } from "./auth.js";
import { serverChannelOptions } from "./channel-options.js";
import type { ArtifactServiceHandlers } from "./generated/troupe/v1/ArtifactService.js";
import type { ControlServiceHandlers } from "./generated/troupe/v1/ControlService.js";
import type { LearnerServiceHandlers } from "./generated/troupe/v1/LearnerService.js";
import type { MembershipHandlers } from "./generated/troupe/v1/Membership.js";
import type { RolloutServiceHandlers } from "./generated/troupe/v1/RolloutService.js";
import { packageDefinition, troupe } from "./load-proto.js";

export interface Services {
  readonly membership: MembershipHandlers;
  readonly rollout: RolloutServiceHandlers;
  readonly learner: LearnerServiceHandlers;
  readonly artifact: ArtifactServiceHandlers;
  readonly control: ControlServiceHandlers;
}

export interface RpcServer {
  /** host:port */
  readonly address: string;
  /** Ends open calls after `graceMs`. Idempotent. */
  close(graceMs: number): Promise<void>;
}

export interface RpcServerOptions {
  readonly host: string;
  readonly port: number;
  readonly token: string | undefined;
  readonly onRefused: (method: string) => void;
}

/** @throws {TroupeError} CONFIG when the port is taken or the host is not an address of this machine */
export async function startRpcServer(services: Services, options: RpcServerOptions): Promise<RpcServer> {
  const server = new grpc.Server({
    ...serverChannelOptions,
    interceptors: options.token === undefined ? [] : [requireToken(options.token, options.onRefused)],
  });
  server.addService(troupe.v1.Membership.service, services.membership);
  server.addService(troupe.v1.RolloutService.service, services.rollout);
  server.addService(troupe.v1.LearnerService.service, services.learner);
  server.addService(troupe.v1.ArtifactService.service, services.artifact);
  server.addService(troupe.v1.ControlService.service, services.control);
  const health = new HealthImplementation({ "": "SERVING" });
  health.addToServer(server);
  new ReflectionService(packageDefinition).addToServer(server);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(
      `${options.host}:${options.port}`,
      grpc.ServerCredentials.createInsecure(),
      (error, bound) => {
        if (error) {
          reject(
            configError(
              `cannot listen on ${options.host}:${options.port}; is another program using the port? Choose another with --port, or 0 for a free one`,
              { cause: error },
            ),
          );
        } else resolve(bound);
      },
    );
  });
  let closing: Promise<void> | undefined;
  return {
    address: `${options.host}:${port}`,
    close(graceMs) {
      closing ??= new Promise((resolve) => {
        const force = setTimeout(() => server.forceShutdown(), graceMs);
        server.tryShutdown(() => {
          clearTimeout(force);
          resolve();
        });
      });
      return closing;
    },
  };
}
