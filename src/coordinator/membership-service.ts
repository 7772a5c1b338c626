/** Register, Heartbeat, Leave: from the wire to core events and back. */
import type * as grpc from "@grpc/grpc-js";
import type { Config } from "../config/schema.js";
import type { Metrics } from "../observability/metrics.js";
import { PROTOCOL_VERSION } from "../rpc/load-proto.js";
import { callerRoles } from "../rpc/auth.js";
import { PermissionError, toServiceError } from "../rpc/status.js";
import type { MembershipHandlers } from "../rpc/generated/troupe/v1/Membership.js";
import type { RegisterRequest__Output } from "../rpc/generated/troupe/v1/RegisterRequest.js";
import { TroupeError, configError, protocolError } from "../shared/errors.js";
import { LEASE_EXPIRED, type AcceptWorker, type LearnerPosition } from "./core/index.js";
import type { CoreHost } from "./core-host.js";
import { checkSender, checkSpeaksAs } from "./sender.js";
import type { WorkerDirectory } from "./worker-directory.js";
import type { WorkerRole } from "../shared/roles.js";

/** What the core says to a heartbeat. */
interface Beat {
  readonly isMember: boolean;
  readonly isReady: boolean;
}

type Answer<T> = (error: grpc.ServiceError | null, reply?: T) => void;

/** A repeated round of parameter averaging may come out differently: the journal cannot tell its history. */
function positionOf({ position }: RegisterRequest__Output, { cluster }: Config): LearnerPosition | null {
  if (position === null) return null;
  const { stage, step, digest, voted } = position;
  const hash = cluster.sync === "parameters" ? "" : digest;
  return { stage, step, hash, voted: voted && { step: voted.step, hash: voted.digest } };
}

/** The machine of a worker that registers, and the workers started there together. */
export interface WorkerMachine {
  readonly host: string;
  /** What its processes may use altogether. */
  readonly memoryBytes: number;
  readonly rollouts: number;
  readonly learners: number;
}

/** @throws {TroupeError} CONFIG when the machine cannot hold them */
export type AdmitWorker = (machine: WorkerMachine) => void;

export interface MembershipOptions {
  readonly host: CoreHost;
  readonly directory: WorkerDirectory;
  readonly runId: string;
  readonly config: Config;
  readonly metrics: Metrics<"coordinator">;
  /** True once the run is over: heartbeats are answered with DRAIN. */
  readonly isOver: () => boolean;
  /** Asked before a worker joins. @default everyone may */
  readonly admitWorker?: AdmitWorker;
}

/** Calls that wait for the same decision: one that is repeated before it was answered must not silence the first. */
class Waiting<T> {
  private readonly byKey = new Map<string, ((decided: T) => void)[]>();

  add(key: string, answer: (decided: T) => void): void {
    const answers = this.byKey.get(key);
    if (answers === undefined) this.byKey.set(key, [answer]);
    else answers.push(answer);
  }

  settle(key: string, decided: T): void {
    const answers = this.byKey.get(key) ?? [];
    this.byKey.delete(key);
    for (const answer of answers) answer(decided);
  }
}

export function makeMembershipService(options: MembershipOptions): MembershipHandlers {
  const { host, directory, runId, config, metrics } = options;
  const joining = new Waiting<AcceptWorker>();
  const beating = new Waiting<Beat>();
  const joinKey = (workerId: string, requestId: string) => `${workerId}/${requestId}`;
  const beatKey = (workerId: string, incarnation: number) => `${workerId}/${incarnation}`;

  host.on("AcceptWorker", (effect) => joining.settle(joinKey(effect.workerId, effect.requestId), effect));
  const settleBeat = (workerId: string, incarnation: number, beat: Beat) => {
    beating.settle(beatKey(workerId, incarnation), beat);
  };
  host.on("AckHeartbeat", ({ workerId, incarnation, isReady }) =>
    settleBeat(workerId, incarnation, { isMember: true, isReady }),
  );
  host.on("FenceWorker", ({ workerId, incarnation }) =>
    settleBeat(workerId, incarnation, { isMember: false, isReady: false }),
  );
  // What it still sends on its way out comes from nobody's worker, and is no loss.
  host.on("ReleaseWorker", ({ workerId, incarnation }) => directory.left(workerId, incarnation));
  host.on("FenceWorker", ({ workerId, incarnation, reason }) => {
    const role = directory.get(workerId)?.role;
    if (role !== undefined && reason === LEASE_EXPIRED) metrics.workerLeaseExpirations.inc({ role });
    directory.lost(workerId, incarnation, reason);
  });

  const register = (request: RegisterRequest__Output, answer: Answer<object>, metadata: grpc.Metadata) => {
    if (request.protocolVersion !== PROTOCOL_VERSION) {
      metrics.workerRegistrations.inc({ role: "rollout", outcome: "refused" });
      throw configError(
        `protocol_version: expected ${PROTOCOL_VERSION}, got ${request.protocolVersion}; run the same release of troupe everywhere`,
      );
    }
    if (request.role === "ROLE_UNSPECIFIED")
      throw protocolError("role: expected ROLE_ROLLOUT or ROLE_LEARNER, got none");
    if (options.isOver()) throw new TroupeError("CANCELLED", "the run is over");
    const role: WorkerRole = request.role === "ROLE_ROLLOUT" ? "rollout" : "learner";
    if (!callerRoles(metadata).includes(role))
      throw new PermissionError(
        `role: the join token is of ${callerRoles(metadata).join(", ")}, it cannot register a ${role}`,
      );
    const workerId = request.workerId || directory.nextName(role);
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(workerId)) {
      throw protocolError(
        `worker_id: expected letters, digits, '.', '_' and '-' (at most 63), got ${JSON.stringify(workerId)}`,
      );
    }
    try {
      if (request.machine !== null) options.admitWorker?.({ ...request.machine, host: request.host });
    } catch (error) {
      metrics.workerRegistrations.inc({ role, outcome: "refused" });
      throw error;
    }
    joining.add(joinKey(workerId, request.requestId), (accepted) => {
      const rejoined = directory.get(workerId) !== undefined;
      directory.join({
        workerId,
        incarnation: accepted.incarnation,
        role,
        host: request.host,
        pid: request.pid,
        metricsAddress: request.metricsAddress,
      });
      metrics.workerRegistrations.inc({ role, outcome: rejoined ? "rejoined" : "joined" });
      answer(null, {
        sender: { runId, epoch: accepted.epoch, workerId, incarnation: accepted.incarnation },
        heartbeatIntervalMs: config.cluster.heartbeatIntervalMs,
        leaseTtlMs: config.cluster.leaseTtlMs,
        configJson: JSON.stringify(config),
      });
    });
    host.dispatch({
      type: "WorkerRegistered",
      workerId,
      role,
      requestId: request.requestId,
      position: positionOf(request, config),
      policyVersion: -1,
    });
  };

  const guarded =
    <Q, R>(handle: (request: Q, answer: Answer<R>, metadata: grpc.Metadata) => void) =>
    (call: { request: Q; metadata: grpc.Metadata }, callback: Answer<R>) => {
      try {
        handle(call.request, callback, call.metadata);
      } catch (error) {
        callback(toServiceError(error));
      }
    };

  return {
    Register: guarded(register) as MembershipHandlers["Register"],
    Heartbeat: guarded(
      (
        request: Parameters<MembershipHandlers["Heartbeat"]>[0]["request"],
        answer: Answer<object>,
        metadata,
      ) => {
        const sender = checkSender(request.sender, runId);
        checkSpeaksAs(callerRoles(metadata), sender, host);
        const { workerId, incarnation } = sender;
        if (options.isOver()) return answer(null, { directive: "DRAIN" });
        directory.heard(
          workerId,
          request._policyVersion === "policyVersion" ? request.policyVersion : undefined,
        );
        beating.add(beatKey(workerId, incarnation), ({ isMember, isReady }) => {
          const directive = !isMember ? "REGISTER_AGAIN" : options.isOver() ? "DRAIN" : "CONTINUE";
          answer(null, { directive, ready: isReady });
        });
        host.dispatch({
          type: "WorkerHeartbeat",
          workerId,
          incarnation,
          ...(request._appliedStep === "appliedStep" ? { appliedStep: request.appliedStep } : {}),
          ...(request.tasks.length > 0 ? { progress: request.tasks } : {}),
        });
      },
    ) as MembershipHandlers["Heartbeat"],
    Leave: guarded(
      (request: Parameters<MembershipHandlers["Leave"]>[0]["request"], answer: Answer<object>, metadata) => {
        const sender = checkSender(request.sender, runId);
        checkSpeaksAs(callerRoles(metadata), sender, host);
        const { workerId, incarnation } = sender;
        host.dispatch({ type: "WorkerLeft", workerId, incarnation });
        directory.left(workerId, incarnation);
        answer(null, {});
      },
    ) as MembershipHandlers["Leave"],
  };
}
