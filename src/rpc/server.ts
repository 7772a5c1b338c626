/** The coordinator's gRPC server: every service of the contract plus standard health and reflection. */
import * as grpc from "@grpc/grpc-js";
import { ReflectionService } from "@grpc/reflection";
import { HealthImplementation } from "grpc-health-check";
import { configError } from "../shared/errors.js";
import { guardCalls, type GuardOptions } from "./auth.js";
import { CHUNK_BYTES, serverChannelOptions } from "./channel-options.js";
import { capConnections, type ConnectionCap } from "./connection-cap.js";
import type { ArtifactServiceHandlers } from "./generated/troupe/v1/ArtifactService.js";
import type { ControlServiceHandlers } from "./generated/troupe/v1/ControlService.js";
import type { LearnerServiceHandlers } from "./generated/troupe/v1/LearnerService.js";
import type { MembershipHandlers } from "./generated/troupe/v1/Membership.js";
import type { RolloutServiceHandlers } from "./generated/troupe/v1/RolloutService.js";
import { lengthenBacklog } from "./listen-backlog.js";
import { packageDefinition, troupe } from "./load-proto.js";
import { withRequestLimits } from "./request-limits.js";
import { widenServerWindow } from "./server-window.js";
import { serverCredentials, type ServerTls } from "./tls.js";

export interface Services {
  readonly membership: MembershipHandlers;
  readonly rollout: RolloutServiceHandlers;
  readonly learner: LearnerServiceHandlers;
  readonly artifact: ArtifactServiceHandlers;
  readonly control: ControlServiceHandlers;
}

/** A peer that is stopped never closes its side of a connection; nobody waits longer for it. */
const UNANSWERED_MS = 500;

export interface RpcServer {
  /** host:port */
  readonly address: string;
  /** Takes no more calls; ends open ones after `graceMs`. Idempotent. */
  close(graceMs: number): Promise<void>;
}

export interface RpcServerOptions extends GuardOptions {
  readonly host: string;
  readonly port: number;
  readonly tls?: ServerTls;
  /** How many connections are taken; all of them without. */
  readonly connections?: ConnectionCap;
  /** Connections are not counted: see connection-cap.ts. */
  readonly onUncapped?: () => void;
  /** Uploads go through HTTP/2's default window, which is several times slower: see server-window.ts. */
  readonly onNarrowWindow?: () => void;
}

/** Whatever adds a service, also a library: no method of it is reached around the rules. */
export class GuardedServer extends grpc.Server {
  override addService(service: grpc.ServiceDefinition, handlers: grpc.UntypedServiceImplementation): void {
    super.addService(withRequestLimits(service), handlers);
  }
}

/**
 * @throws {TroupeError} CONFIG when the port is taken, the host is not an address of this machine, or a TLS file
 *   cannot be used
 */
export async function startRpcServer(services: Services, options: RpcServerOptions): Promise<RpcServer> {
  const credentials = serverCredentials(options.tls);
  const server = new GuardedServer({ ...serverChannelOptions, interceptors: [guardCalls(options)] });
  lengthenBacklog(server);
  if (!widenServerWindow(server, CHUNK_BYTES)) options.onNarrowWindow?.();
  if (options.connections !== undefined && !capConnections(server, options.connections))
    options.onUncapped?.();
  server.addService(troupe.v1.Membership.service, services.membership);
  server.addService(troupe.v1.RolloutService.service, services.rollout);
  server.addService(troupe.v1.LearnerService.service, services.learner);
  server.addService(troupe.v1.ArtifactService.service, services.artifact);
  server.addService(troupe.v1.ControlService.service, services.control);
  new HealthImplementation({ "": "SERVING" }).addToServer(server);
  new ReflectionService(packageDefinition).addToServer(server);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${options.host}:${options.port}`, credentials, (error, bound) => {
      if (error) {
        reject(
          configError(
            `cannot listen on ${options.host}:${options.port}; is another program using the port? Choose another with --port, or 0 for a free one`,
            { cause: error },
          ),
        );
      } else resolve(bound);
    });
  });
  const address = `${options.host}:${port}`;
  let closing: Promise<void> | undefined;
  return {
    address,
    close(graceMs) {
      closing ??= new Promise((resolve) => {
        // `forceShutdown` knows only the connections that channelz counts, and channelz is off.
        server.drain(address, graceMs);
        const giveUp = setTimeout(resolve, graceMs + UNANSWERED_MS);
        server.tryShutdown(() => {
          clearTimeout(giveUp);
          resolve();
        });
      });
      return closing;
    },
  };
}
