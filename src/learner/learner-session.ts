/** One registration of a learner: a directive stream from the coordinator, obeyed in order. */
import type { ClientDuplexStream } from "@grpc/grpc-js";
import type { LearnerDirective__Output } from "../rpc/generated/troupe/v1/LearnerDirective.js";
import type { LearnerMessage } from "../rpc/generated/troupe/v1/LearnerMessage.js";
import { BulkServer } from "../reduce/bulk-server.js";
import { fromServiceError } from "../rpc/status.js";
import { abortable, sleep } from "../shared/abort.js";
import { TroupeError, describeError, errorCodeOf } from "../shared/errors.js";
import { isLoopback } from "../shared/loopback.js";
import type { Session } from "../worker/coordinator-link.js";
import type { WorkerContext } from "../worker/start-worker.js";
import { LearnerAnswers, type Answer } from "./learner-answers.js";
import type { LearnerState } from "./learner-state.js";
import { TrainSteps } from "./train-steps.js";

export class LearnerSession {
  private readonly call: ClientDuplexStream<LearnerMessage, LearnerDirective__Output>;
  private readonly answers: LearnerAnswers;
  private readonly steps: TrainSteps;
  /** The newest directive that replaces parameters; `done` never rejects. */
  private change: { readonly done: Promise<void>; readonly sinceMs: number } | undefined;

  /** It has been said that its computation does not return: nothing waits for that any more. */
  private isHung = false;

  private constructor(
    state: LearnerState,
    private readonly session: Session,
    private readonly context: WorkerContext<"learner">,
    private readonly peers: BulkServer | undefined,
  ) {
    this.answers = new LearnerAnswers(state, session, context);
    this.steps = new TrainSteps(state, session, context, (message) => this.send(message), peers);
    this.call = session.clients.learner.perform() as ClientDuplexStream<
      LearnerMessage,
      LearnerDirective__Output
    >;
  }

  /** Opens what a session needs and cannot be opened at once. */
  static async start(
    state: LearnerState,
    session: Session,
    context: WorkerContext<"learner">,
  ): Promise<LearnerSession> {
    return new LearnerSession(state, session, context, await listenForPeers(session));
  }

  async run(): Promise<void> {
    const { call, session } = this;
    // The loop below reports errors; one that comes after it ended (the cancel in `finally`) is old news.
    call.on("error", () => undefined);
    const ended = new AbortController();
    const end = () => ended.abort();
    call.once("close", end);
    const askToLeave = () => this.send({ draining: {} });
    const cancel = () => {
      call.cancel();
      // The loop below may be waiting for the step, and hears of nothing before it is over: not even of the call's end
      // while a directive lies unread.
      this.steps.interrupt("the session ended");
      end();
    };
    session.draining.addEventListener("abort", askToLeave, { once: true });
    session.signal.addEventListener("abort", cancel, { once: true });
    try {
      this.send({ hello: { bulkPort: this.peers?.port ?? 0 } });
      if (session.draining.aborted) askToLeave();
      for await (const directive of call as AsyncIterable<LearnerDirective__Output>) {
        const done = this.obey(directive);
        if (directive.setup || directive.applyVoted) this.change = { done, sinceMs: performance.now() };
        // What does not change parameters need not be waited for when nobody is left to hear its result: whoever holds
        // the newest state must say so soon, and a computation may never return. What changes them is waited for below.
        await abortable(done, ended.signal).catch((error: unknown) => {
          if (!ended.signal.aborted) throw error;
        });
        session.signal.throwIfAborted();
      }
    } catch (error) {
      throw await this.orHung(error);
    } finally {
      session.draining.removeEventListener("abort", askToLeave);
      session.signal.removeEventListener("abort", cancel);
      call.cancel();
      await this.whenUnchanging();
      await this.answers.close();
    }
  }

  /**
   * The next session must not begin while parameters are still being changed for this one.
   * @throws {TroupeError} INTERNAL when that takes longer than it may: only another process can be of use again
   */
  private async whenUnchanging(): Promise<void> {
    if (this.isHung) return;
    if (!(await this.steps.close(this.limitMs)))
      throw this.stuck("the step under way did not come to its end");
    if (this.change === undefined) return;
    const { done, sinceMs } = this.change;
    const patience = new AbortController();
    const isDone = await Promise.race([
      done.then(() => true),
      sleep(sinceMs + this.limitMs - performance.now(), patience.signal).then(() => false),
    ]);
    patience.abort();
    if (!isDone) throw this.stuck("parameters were not loaded");
  }

  private get limitMs(): number {
    return this.session.config.cluster.healTimeoutMs;
  }

  private stuck(what: string): TroupeError {
    const stuck = new TroupeError(
      "INTERNAL",
      `${what} within ${this.limitMs / 1000} s (cluster.healTimeoutMs), and nobody waits for it any more; this process ends, so that its supervisor starts another`,
    );
    this.context.logger.error(stuck.message); // a stuck thread may leave no time to say it later
    return stuck;
  }

  /** Put out while its computation has had the time of several attempts: only another process can be of use again. */
  private async orHung(error: unknown): Promise<unknown> {
    const { code, message } = fromServiceError(error, "serving the coordinator");
    if (code !== "FENCED" || this.session.draining.aborted) return error;
    await this.steps.close(this.limitMs, false);
    const { overdueStep } = this.steps;
    if (overdueStep === undefined) return error;
    this.isHung = true;
    const hung = new TroupeError(
      "INTERNAL",
      `step ${overdueStep}: the computation of the gradients does not return (${message}); this process ends, so that its supervisor starts another`,
    );
    this.context.logger.error(hung.message); // a stuck thread may leave no time to say it later
    return hung;
  }

  private obey(directive: LearnerDirective__Output): Promise<void> {
    const answer = this.answers.to(directive);
    return answer === undefined ? this.steps.obey(directive) : this.answer(directive.requestId, answer);
  }

  private async answer(requestId: LearnerMessage["requestId"], answer: Promise<Answer>): Promise<void> {
    try {
      this.send({ requestId, ...(await answer) });
    } catch (error) {
      this.context.logger.error({ err: error }, "directive failed");
      this.send({ requestId, failure: { errorCode: errorCodeOf(error), message: describeError(error) } });
    }
  }

  private send(message: Omit<LearnerMessage, "sender">): void {
    this.call.write({ sender: this.session.sender, ...message });
  }
}

/** Where other learners reach this one, when learners sum among themselves. */
async function listenForPeers({ coordinatorHost, config }: Session): Promise<BulkServer | undefined> {
  const { allReduce, bulkChannel, tls } = config.cluster;
  // Of peers on this host one address is known to be open to all of them.
  const isAmongNeighbours = bulkChannel !== "off" && coordinatorHost.startsWith("127.");
  if (allReduce !== "sharded" && !(allReduce === "auto" && isAmongNeighbours)) return undefined;
  return BulkServer.listen({
    host: isLoopback(coordinatorHost) ? "127.0.0.1" : undefined,
    port: 0,
    isEncrypted: tls.cert !== null,
  });
}
