/**
 * The bulk path of an optimizer step: one bidirectional call per member, buckets up, totals down as soon as they are
 * complete. A session exists exactly as long as its generation: frames of any other generation or step are refused.
 */
import type * as grpc from "@grpc/grpc-js";
import type { Metrics } from "../observability/metrics.js";
import { decodeGradient, encodeGradient, type WireFormat } from "../rpc/codec/gradient.js";
import type { GradientChunk } from "../rpc/generated/troupe/v1/GradientChunk.js";
import type { GradientChunk__Output } from "../rpc/generated/troupe/v1/GradientChunk.js";
import type { GradientHeader__Output } from "../rpc/generated/troupe/v1/GradientHeader.js";
import { toServiceError } from "../rpc/status.js";
import { TroupeError, describeError, protocolError } from "../shared/errors.js";
import { GradientSum, type TreeNode } from "./all-reduce.js";
import type { StepMember } from "./core/index.js";
import { checkSender } from "./membership-service.js";

/** A bucket is one message; the service takes messages of at most 4 MiB, this leaves room for the envelope. */
const MAX_BUCKET_BYTES = 2 << 20;
/** Of one gradient: 64 GiB in buckets of 1 MiB. Small buckets would cost more in books than in bytes. */
const MAX_BUCKETS = 1 << 16;

type Call = grpc.ServerDuplexStream<GradientChunk__Output, GradientChunk>;

interface Session {
  readonly generation: number;
  readonly step: number;
  readonly shardCount: number;
  readonly members: ReadonlyMap<string, StepMember>;
  readonly calls: Map<string, Call>;
  readonly startedMs: number;
  sum: GradientSum | undefined;
}

export interface AllReduceOptions {
  readonly runId: string;
  readonly wire: WireFormat;
  readonly metrics: Metrics<"coordinator">;
  /** A member broke the contract or its stream: the step cannot complete in this generation. */
  readonly onFailed: (failure: {
    generation: number;
    step: number;
    workerId: string | null;
    reason: string;
  }) => void;
}

export class AllReduceService {
  private session: Session | undefined;

  constructor(private readonly options: AllReduceOptions) {}

  open(generation: number, step: number, shardCount: number, members: readonly StepMember[]): void {
    this.close("a newer generation was opened");
    this.session = {
      generation,
      step,
      shardCount,
      members: new Map(members.map((member) => [member.workerId, member])),
      calls: new Map(),
      startedMs: performance.now(),
      sum: undefined,
    };
  }

  /** Ends the session; members still waiting for totals get an error. Idempotent. */
  close(reason: string): void {
    const { session } = this;
    this.session = undefined;
    if (session === undefined || session.sum?.isComplete) return;
    for (const call of session.calls.values())
      call.emit("error", toServiceError(new TroupeError("CANCELLED", reason)));
  }

  readonly handle = (call: Call): void => {
    let session: Session | undefined;
    let header: GradientHeader__Output | undefined;
    let workerId = "";
    const fail = (error: unknown) => {
      call.emit("error", toServiceError(error));
      if (session === undefined || session !== this.session) return;
      this.options.onFailed({
        generation: session.generation,
        step: session.step,
        workerId,
        reason: describeError(error),
      });
    };
    call.on("data", (message: GradientChunk__Output) => {
      try {
        if (message.header) {
          if (header !== undefined) throw protocolError("GradientChunk.header: expected once, got it twice");
          header = message.header;
          workerId = checkSender(header.sender, this.options.runId).workerId;
          session = this.join(header, workerId, call);
        } else if (message.bucket) {
          if (header === undefined || session === undefined)
            throw protocolError("GradientChunk: expected the header first, got a bucket");
          if (session !== this.session) throw staleGeneration(session);
          this.add(session, header.nodes, message.bucket);
        }
      } catch (error) {
        fail(error);
      }
    });
    call.on("end", () => {
      if (header === undefined)
        fail(protocolError("GradientChunk: expected a header first, the stream ended"));
    });
    call.on("cancelled", () => {
      if (session !== undefined && session === this.session && !session.sum?.isComplete)
        fail(new TroupeError("UNREACHABLE", "the learner's stream ended"));
    });
    call.on("error", () => undefined); // reported where it was raised
  };

  private join(header: GradientHeader__Output, workerId: string, call: Call): Session {
    const { session } = this;
    if (session === undefined || header.generation !== session.generation || header.step !== session.step) {
      this.options.metrics.staleFrames.inc();
      throw new TroupeError(
        "CANCELLED",
        `all-reduce of generation ${header.generation}, step ${header.step} is not open`,
      );
    }
    if (!session.members.has(workerId))
      throw new TroupeError("FENCED", `${workerId} is not a member of generation ${session.generation}`);
    if (session.calls.has(workerId))
      throw protocolError(`${workerId} joined the all-reduce of step ${session.step} twice`);
    checkHeader(header, session.members.get(workerId) as StepMember);
    session.sum ??= new GradientSum(
      session.shardCount,
      header.elementCount,
      header.bucketElements,
      (bucket, total) => this.send(session, bucket, total),
    );
    if (
      session.sum.elementCount !== header.elementCount ||
      session.sum.bucketElements !== header.bucketElements
    ) {
      throw protocolError(
        `${workerId}: expected gradients of ${session.sum.elementCount} elements in buckets of ${session.sum.bucketElements}, got ${header.elementCount} in ${header.bucketElements}`,
      );
    }
    session.calls.set(workerId, call);
    // Totals that were complete before this member joined.
    for (let bucket = 0; bucket < session.sum.bucketCount; bucket++) {
      const total = session.sum.resultOf(bucket);
      if (total !== undefined) this.write(call, bucket, encodeGradient(total, this.options.wire));
    }
    this.finishIfComplete(session);
    return session;
  }

  private add(
    session: Session,
    nodes: readonly TreeNode[],
    message: { node: number; bucket: number; values: Uint8Array },
  ): void {
    const { sum } = session;
    const node = nodes[message.node] as TreeNode | undefined;
    if (sum === undefined || node === undefined)
      throw protocolError(`GradientBucket.node: expected below ${nodes.length}, got ${message.node}`);
    this.options.metrics.allreduceBytes.inc({ direction: "in" }, message.values.byteLength);
    const values = decodeGradient(
      message.values,
      this.options.wire,
      sum.lengthOf(message.bucket),
      `bucket ${message.bucket}`,
    );
    sum.add(node, message.bucket, values);
    this.finishIfComplete(session);
  }

  private send(session: Session, bucket: number, total: Float32Array): void {
    const values = encodeGradient(total, this.options.wire);
    for (const call of session.calls.values()) this.write(call, bucket, values);
  }

  private write(call: Call, bucket: number, values: Buffer): void {
    this.options.metrics.allreduceBytes.inc({ direction: "out" }, values.byteLength);
    call.write({ bucket: { node: 0, bucket, values } });
  }

  private finishIfComplete(session: Session): void {
    if (!session.sum?.isComplete) return;
    for (const [workerId, call] of session.calls) {
      if (call.writableEnded) continue;
      call.end();
      if (workerId === [...session.members.keys()].at(-1)) {
        this.options.metrics.allreduceDuration.observe((performance.now() - session.startedMs) / 1000);
      }
    }
  }
}

/** Sizes are announced before the bytes come, and nodes say whose shards they sum: neither is taken on trust. */
function checkHeader(
  { elementCount, bucketElements, nodes }: GradientHeader__Output,
  member: StepMember,
): void {
  if (!(bucketElements >= 1 && bucketElements * 4 <= MAX_BUCKET_BYTES))
    throw protocolError(
      `GradientHeader.bucket_elements: expected 1 to ${MAX_BUCKET_BYTES / 4}, got ${bucketElements}`,
    );
  if (!(elementCount >= 1 && elementCount <= bucketElements * MAX_BUCKETS))
    throw protocolError(
      `GradientHeader.element_count: expected 1 to ${MAX_BUCKETS} buckets of ${bucketElements}, got ${elementCount}`,
    );
  const end = member.firstShard + member.shardCount;
  for (const { level, index } of nodes) {
    if (level <= 30 && index * 2 ** level >= member.firstShard && (index + 1) * 2 ** level <= end) continue;
    throw protocolError(
      `GradientHeader.nodes: ${member.workerId} computes the ${member.shardCount} shards from ${member.firstShard}, node ${level}/${index} covers others`,
    );
  }
}

const staleGeneration = ({ generation, step }: Session): TroupeError =>
  new TroupeError("CANCELLED", `generation ${generation}, step ${step} was given up`);
