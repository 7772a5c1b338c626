/** A learner as its process runs it, with its computation in this thread: real sessions, real models, no worker thread. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LearnerCompute } from "../../../src/learner/learner-compute.js";
import { LearnerSession } from "../../../src/learner/learner-session.js";
import { LearnerState } from "../../../src/learner/learner-state.js";
import type { Arena } from "../../../src/engine/engine.js";
import { createLogger } from "../../../src/observability/logger.js";
import { createMetrics } from "../../../src/observability/metrics.js";
import { serveCoordinator } from "../../../src/worker/coordinator-link.js";

export class InProcessLearner {
  private readonly stopping = new AbortController();
  private readonly scratchDir = mkdtempSync(join(tmpdir(), "troupe-learner-test-"));
  private models: LearnerCompute | undefined;
  readonly state: LearnerState;
  readonly ended: Promise<void>;
  /** Replaces what the compute thread answers, for as long as it is set. */
  intercept: ((name: string, result: unknown) => unknown) | undefined;

  constructor(workerId: string, coordinator: string) {
    const compute = { run: (name: string, argument: unknown) => this.run(name, argument) };
    this.state = new LearnerState(compute as unknown as LearnerState["compute"], this.scratchDir);
    const logger = createLogger({ role: "learner", level: "silent" });
    const metrics = createMetrics("learner", { processMetrics: false });
    this.ended = serveCoordinator(
      {
        role: "learner",
        coordinator,
        // Its own connection, as a process of its own has.
        access: { channelOptions: { "grpc.primary_user_agent": workerId } },
        workerId,
        metricsAddress: "127.0.0.1:1",
        logger,
        signal: this.stopping.signal,
        holdings: () => this.state.holdings(),
        onOtherRun: () => undefined,
        onHeartbeat: () => undefined,
        onReconnect: () => undefined,
      },
      async (session) => (await LearnerSession.start(this.state, session, { logger, metrics })).run(),
    );
    this.ended.catch(() => undefined); // whoever awaits it sees why
  }

  /** One bit of one parameter, as a fault of memory would change it. */
  async flipBit(): Promise<void> {
    const [{ params }] = (this.models as unknown as { models: { params: Arena }[] }).models;
    const values = await params.read();
    new Uint32Array(values.buffer, values.byteOffset, 1)[0] ^= 1;
    await params.write(values);
  }

  stateSha256(): Promise<string> {
    return this.models!.stateSha256();
  }

  async stop(): Promise<void> {
    this.stopping.abort();
    await this.ended;
    await this.models?.close();
    rmSync(this.scratchDir, { recursive: true, force: true });
  }

  private async run(name: string, argument: unknown): Promise<unknown> {
    if (name === "configure") {
      await this.models?.close();
      this.models = await LearnerCompute.open(argument as Parameters<typeof LearnerCompute.open>[0]);
      return { parameterCount: this.models.parameterCount, engine: "" };
    }
    const isOfRound = ["innerStep", "contribution", "rollBack"].includes(name);
    const methods = (isOfRound ? this.models!.round : this.models) as unknown as Record<
      string,
      (argument: unknown) => Promise<unknown>
    >;
    const result = await methods[name](argument);
    return this.intercept === undefined ? result : this.intercept(name, result);
  }
}
