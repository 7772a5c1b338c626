/** Questions to one learner over its stream, each answered once and in time; one that is gone answers none of them. */
import type { LearnerDirective } from "../rpc/generated/troupe/v1/LearnerDirective.js";
import type { LearnerMessage__Output } from "../rpc/generated/troupe/v1/LearnerMessage.js";
import { abortable, makeDeferred, type Deferred } from "../shared/abort.js";
import { TroupeError, asErrorCode } from "../shared/errors.js";
import type { StreamRegistry } from "./stream-registry.js";
import type { StreamPeer } from "./worker-stream.js";

interface Request {
  readonly workerId: string;
  /** Of the stream that carried the question; undefined without one. */
  readonly incarnation: number | undefined;
  readonly reply: Deferred<LearnerMessage__Output>;
}

export interface SilentLearner {
  readonly workerId: string;
  readonly incarnation: number;
  readonly reason: string;
}

export interface Patience {
  readonly limitMs: number;
  readonly signal?: AbortSignal;
}

export class LearnerRequests {
  private readonly open = new Map<number, Request>();
  private nextId = 1;

  /** @param onSilent told of a learner that is connected and did not answer in time */
  constructor(
    private readonly streams: StreamRegistry<LearnerDirective>,
    private readonly onSilent: (learner: SilentLearner) => void,
  ) {}

  /**
   * @throws {TroupeError} UNREACHABLE when the learner is not connected, leaves before it answers, or does not answer
   *   within `limitMs`; the error the learner answers with
   */
  ask(
    workerId: string,
    directive: Omit<LearnerDirective, "requestId">,
    { limitMs, signal }: Patience,
  ): Promise<LearnerMessage__Output> {
    const requestId = this.nextId++;
    const reply = makeDeferred<LearnerMessage__Output>();
    const incarnation = this.streams.incarnationOf(workerId);
    this.open.set(requestId, { workerId, incarnation, reply });
    if (incarnation === undefined || !this.streams.send(workerId, { ...directive, requestId }))
      this.reject(requestId, `${workerId} is not connected`);
    const timer = setTimeout(() => {
      if (incarnation === undefined || !this.open.has(requestId)) return;
      const asked = Object.keys(directive).join(", ");
      const reason = `no answer to "${asked}" within ${limitMs / 1000} s`;
      this.reject(requestId, `${workerId}: ${reason}`);
      this.onSilent({ workerId, incarnation, reason });
    }, limitMs);
    const answer = signal === undefined ? reply.promise : abortable(reply.promise, signal);
    return answer.finally(() => {
      clearTimeout(timer);
      this.open.delete(requestId);
    });
  }

  /** @returns whether the message claims to answer a question; it counts only from the process that was asked */
  settle(message: LearnerMessage__Output, from: StreamPeer): boolean {
    if (message.requestId === 0) return false;
    const request = this.open.get(message.requestId);
    if (request?.workerId !== from.workerId || request.incarnation !== from.incarnation) return true;
    this.open.delete(message.requestId);
    if (message.failure) {
      const { errorCode, message: text } = message.failure;
      request.reply.reject(new TroupeError(asErrorCode(errorCode), `${from.workerId}: ${text}`));
    } else request.reply.resolve(message);
    return true;
  }

  /** The learner is gone: what it was asked must be asked elsewhere. */
  forget(workerId: string): void {
    for (const [requestId, request] of this.open)
      if (request.workerId === workerId) this.reject(requestId, `${workerId} is gone`);
  }

  private reject(requestId: number, reason: string): void {
    this.open.get(requestId)?.reply.reject(new TroupeError("UNREACHABLE", reason));
    this.open.delete(requestId);
  }
}
