/** What people and tools ask a coordinator: status, scale, progress, stop. */
import type * as grpc from "@grpc/grpc-js";
import type { ProgressEvent } from "../observability/progress.js";
import { TroupeError } from "../shared/errors.js";
import { CONTROL_DEADLINE_MS, deadlineIn } from "./deadlines.js";
import type { ProgressEvent__Output } from "./generated/troupe/v1/ProgressEvent.js";
import type { StatusReply__Output } from "./generated/troupe/v1/StatusReply.js";
import { troupe } from "./load-proto.js";
import { fromServiceError, isRetryable } from "./status.js";
import { clientChannel, explainTlsFailure, type Access } from "./tls.js";
import type { WorkerRole } from "../shared/roles.js";

export type RunStatus = StatusReply__Output;

export class ControlClient {
  private readonly client: InstanceType<typeof troupe.v1.ControlService>;

  constructor(
    readonly address: string,
    private readonly access: Access = {},
  ) {
    const { credentials, options } = clientChannel(address, access);
    this.client = new troupe.v1.ControlService(address, credentials, options);
  }

  status(): Promise<RunStatus> {
    return this.unary("status", (done) =>
      this.client.status({}, { deadline: deadlineIn(CONTROL_DEADLINE_MS) }, done),
    );
  }

  /** Wanted number of processes of a role; the launcher (or whatever placed the workers) follows it. */
  async scale(role: WorkerRole, count: number): Promise<Record<string, number>> {
    const reply = await this.unary<{ desired: Record<string, number> }>("scale", (done) =>
      this.client.scale({ role, count }, { deadline: deadlineIn(CONTROL_DEADLINE_MS) }, done),
    );
    return reply.desired;
  }

  async stop(reason: string): Promise<void> {
    await this.unary("stop", (done) =>
      this.client.stop({ reason }, { deadline: deadlineIn(CONTROL_DEADLINE_MS) }, done),
    );
  }

  /** Everything that happened so far (bounded), then live, until the run ends or `signal` aborts. */
  async *watch(signal: AbortSignal): AsyncIterable<ProgressEvent> {
    const call = this.client.watch({});
    const cancel = () => call.cancel();
    signal.addEventListener("abort", cancel, { once: true });
    try {
      for await (const message of call)
        yield JSON.parse((message as ProgressEvent__Output).json) as ProgressEvent;
    } catch (error) {
      if (!signal.aborted) throw fromServiceError(error, `watching the run at ${this.address}`);
    } finally {
      signal.removeEventListener("abort", cancel);
      call.cancel();
    }
  }

  close(): void {
    this.client.close();
  }

  private async unary<T>(
    what: string,
    start: (done: (error: grpc.ServiceError | null, reply?: T) => void) => unknown,
  ): Promise<T> {
    try {
      return await new Promise((resolve, reject) => {
        start((error, reply) => {
          if (error) reject(fromServiceError(error, `${what}: coordinator at ${this.address}`));
          else resolve(reply as T);
        });
      });
    } catch (error) {
      const isUnreachable = error instanceof TroupeError && isRetryable(error);
      throw (isUnreachable ? await explainTlsFailure(this.address, this.access.tls) : undefined) ?? error;
    }
  }
}
