/**
 * The coordinator's part in summing gradients. It arranges how they travel: through the AllReduce call (one
 * bidirectional call per member, buckets up, totals down as soon as they are complete), over the bulk channel to the
 * coordinator, or over it from learner to learner. Where it reduces itself, a reduction exists exactly as long as its
 * generation: frames of any other are refused.
 */
import { randomBytes } from "node:crypto";
import type * as grpc from "@grpc/grpc-js";
import type { Metrics } from "../observability/metrics.js";
import type { WireFormat } from "../rpc/codec/gradient.js";
import type { Exchange } from "../rpc/generated/troupe/v1/Exchange.js";
import type { Reducer } from "../rpc/generated/troupe/v1/Reducer.js";
import { MessageReader, bucketHead } from "../rpc/codec/gradient-messages.js";
import type { GradientChunk } from "../rpc/generated/troupe/v1/GradientChunk.js";
import type { GradientChunk__Output } from "../rpc/generated/troupe/v1/GradientChunk.js";
import type { GradientHeader__Output } from "../rpc/generated/troupe/v1/GradientHeader.js";
import { troupe } from "../rpc/load-proto.js";
import { METHOD_RULES } from "../rpc/method-rules.js";
import { takeServerStream, type ServerStream } from "../rpc/server-stream.js";
import { tooLong, undecodable } from "../rpc/request-limits.js";
import { asServiceError, toServiceError } from "../rpc/status.js";
import type { BulkServer } from "../reduce/bulk-server.js";
import { Reduction, type Contribution, type MemberPort, type ReductionFailure } from "../reduce/reduction.js";
import { TroupeError, protocolError } from "../shared/errors.js";
import { BrokenLinks, COORDINATOR } from "./broken-links.js";
import type { StepMember } from "./core/index.js";
import { checkSender } from "./sender.js";

/** As long as a TLS 1.3 key of SHA-256. */
const SECRET_BYTES = 32;

const { path, requestDeserialize } = troupe.v1.LearnerService.service.AllReduce;
const MAX_MESSAGE_BYTES = METHOD_RULES[path].maxRequestBytes;

type Call = grpc.ServerDuplexStream<GradientChunk__Output, GradientChunk>;

export interface AllReduceOptions {
  readonly runId: string;
  readonly wire: WireFormat;
  /** See `ReductionOptions`. */
  readonly bucketTimeoutMs: number;
  readonly metrics: Metrics<"coordinator">;
  /** Connections of the bulk channel; without it everything goes through the AllReduce call. */
  readonly bulk?: BulkServer;
  readonly isEncrypted?: boolean;
  /** Other than with "star", the default, learners sum among themselves where all of them can be reached. */
  readonly topology?: "auto" | "star" | "sharded";
  /** Where a learner takes bulk connections; undefined when it does not. */
  readonly bulkAddressOf?: (workerId: string) => { readonly host: string; readonly port: number } | undefined;
  /** A member broke the contract or its stream: the step cannot complete in this generation. */
  readonly onFailed: (failure: ReductionFailure) => void;
}

export class AllReduceService {
  private reduction: Reduction | undefined;
  private readonly brokenLinks = new BrokenLinks();
  /** Of the attempt that is open. */
  private members: readonly StepMember[] = [];

  constructor(private readonly options: AllReduceOptions) {}

  /**
   * @param route "call": through the AllReduce call in any case
   * @returns what the members must know to send their gradients; undefined: through the AllReduce call
   */
  open(
    generation: number,
    step: number,
    shardCount: number,
    members: readonly StepMember[],
    route: "best" | "call" = "best",
  ): Exchange | undefined {
    this.close("a newer generation was opened");
    this.members = members;
    const { wire, bucketTimeoutMs, metrics, onFailed, bulk, isEncrypted = false } = this.options;
    const secret = randomBytes(SECRET_BYTES);
    const contributors = members.map(({ workerId, firstShard, shardCount }) => ({
      ...{ workerId, firstShard, shardCount },
    }));
    const peers = route === "best" ? this.peersOf(members) : undefined;
    if (peers !== undefined) return { reducers: peers, secret, isEncrypted, contributors };
    this.reduction = new Reduction({
      ...{ generation, step, shardCount, members, wire, bucketTimeoutMs, onFailed },
      onBytes: (direction, bytes) => metrics.allreduceBytes.inc({ direction }, bytes),
      onComplete: (elapsedMs) => metrics.allreduceDuration.observe(elapsedMs / 1000),
    });
    if (bulk === undefined || route === "call") return undefined;
    if (this.brokenLinks.among(incarnationsOf(members), COORDINATOR)) return undefined;
    bulk.open({ reduction: this.reduction, secret });
    return { reducers: [{ workerId: "", host: "", port: bulk.port }], secret, isEncrypted };
  }

  /**
   * A learner says that it could not sum with another, or (`otherId` "") not reach the coordinator's bulk channel. Their
   * connection may be to blame as well as either end, so whoever has both among its members sums another way (star, the
   * AllReduce call) until one of them registers anew: what is really wrong with one of them shows there.
   * @returns false when there is no other way, or it was taken already
   */
  noteBrokenLink(workerId: string, otherId: string): boolean {
    const incarnationOf = (name: string) =>
      name === "" ? COORDINATOR : this.members.find((member) => member.workerId === name)?.incarnation;
    const [a, b] = [incarnationOf(workerId), incarnationOf(otherId)];
    if (a === undefined || b === undefined || (b === COORDINATOR && this.options.bulk === undefined))
      return false;
    return this.brokenLinks.note(a, b);
  }

  /** Every member as a reducer of its part; undefined when the coordinator has to reduce. */
  private peersOf(members: readonly StepMember[]): Reducer[] | undefined {
    const { topology = "star", bulkAddressOf } = this.options;
    if (topology === "star") return undefined;
    if (this.brokenLinks.among(incarnationsOf(members))) return undefined;
    const reducers = members.map(({ workerId }) => {
      const address = bulkAddressOf?.(workerId);
      return address === undefined ? undefined : { workerId, ...address };
    });
    return reducers.every((reducer) => reducer !== undefined) ? reducers : undefined;
  }

  /** Ends the reduction; members still waiting for totals get an error. Idempotent. */
  close(reason: string): void {
    this.reduction?.close(reason);
    this.reduction = undefined;
    this.options.bulk?.open(undefined);
  }

  readonly handle = (call: Call): void => {
    let contribution: Contribution | undefined;
    let hasFailed = false;
    const fail = (error: unknown) => {
      if (hasFailed) return;
      hasFailed = true;
      contribution?.lost(error);
      call.emit("error", toServiceError(error));
    };
    const join = (header: GradientHeader__Output) => {
      if (contribution !== undefined)
        throw protocolError("GradientChunk.header: expected once, got it twice");
      const { workerId } = checkSender(header.sender, this.options.runId);
      contribution = this.reductionOf(header).join(workerId, header, portOf(call, stream));
    };
    const joined = (): Contribution => {
      if (contribution === undefined)
        throw protocolError("GradientChunk: expected the header first, got a bucket");
      return contribution;
    };
    const take = ({ header, bucket }: GradientChunk__Output) => {
      if (header) join(header);
      else if (bucket) joined().add(bucket.node, bucket.bucket, bucket.values);
    };
    const reader = new MessageReader(
      {
        targetOf(node, bucket, length) {
          const { pool, bytesOf } = joined();
          const expected = bytesOf(node, bucket);
          if (length !== expected)
            throw protocolError(`bucket ${bucket}: expected ${expected} bytes, got ${length}`);
          return pool.take(length);
        },
        bucket: (node, bucket, values) => joined().add(node, bucket, values),
        message: (bytes) => take(decodeChunk(bytes)),
      },
      MAX_MESSAGE_BYTES,
      (length) => asServiceError(tooLong(path, MAX_MESSAGE_BYTES, length)),
    );
    const guard = (act: () => void) => {
      if (hasFailed) return;
      try {
        act();
      } catch (error) {
        fail(error);
      }
    };
    const stream = takeServerStream(call, (bytes) => guard(() => reader.read(bytes)));
    call.on("data", (message: GradientChunk__Output) => guard(() => take(message)));
    call.on("end", () => {
      if (contribution === undefined)
        fail(protocolError("GradientChunk: expected a header first, the stream ended"));
    });
    call.on("cancelled", () =>
      contribution?.lost(new TroupeError("UNREACHABLE", "the learner's stream ended")),
    );
    call.on("error", () => undefined); // reported where it was raised
  };

  private reductionOf({ generation, step }: { generation: number; step: number }): Reduction {
    const { reduction } = this;
    if (reduction?.options.generation === generation && reduction.options.step === step) return reduction;
    this.options.metrics.staleFrames.inc();
    throw new TroupeError("CANCELLED", `all-reduce of generation ${generation}, step ${step} is not open`);
  }
}

const incarnationsOf = (members: readonly StepMember[]): number[] =>
  members.map(({ incarnation }) => incarnation);

function decodeChunk(bytes: Buffer): GradientChunk__Output {
  try {
    return requestDeserialize(bytes);
  } catch (error) {
    throw asServiceError(undecodable(path, error));
  }
}

/** @param stream below the call; without it totals go through grpc-js's own code */
function portOf(call: Call, stream: ServerStream | undefined): MemberPort {
  return {
    send: (bucket, total, onSent) => {
      if (stream !== undefined) stream.write(bucketHead(0, bucket, total.length), total, onSent);
      // grpc-js may serialise later: the memory is free only when it says so.
      else call.write({ bucket: { node: 0, bucket, values: total as Buffer } }, onSent);
    },
    pause: () => void (stream ?? call).pause(),
    resume: () => void (stream ?? call).resume(),
    finish: () => void call.end(),
    fail: (error) => void call.emit("error", toServiceError(error)),
  };
}
