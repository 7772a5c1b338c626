/** The coordinator process: takes the run over, listens, runs the stages, leaves results. No tensor code here. */
import { join, resolve } from "node:path";
import type { Config } from "../config/schema.js";
import { resolveTokenizerDirectory } from "../data/tokenizer-source.js";
import { TokenizerPool } from "../data/tokenizer-pool.js";
import { sleep } from "../shared/abort.js";
import { describeError, errorCodeOf } from "../shared/errors.js";
import { openRunContext } from "../stages/run-context.js";
import { runStages } from "../stages/run-stages.js";
import { openCoordinator, type Coordinator } from "./coordinator.js";
import { openEndpoints, readCredentials } from "./endpoints.js";
import type { AdmitWorker } from "./membership-service.js";
import { followsAnother, openDurability } from "./standby-durability.js";
import type { WorkerDirectory } from "./worker-directory.js";

/** How long workers get to leave at the end before the server closes on them. */
const DRAIN_MS = 5_000;
/** How long open calls may still take once the run is over. */
const GRACE_MS = 1_000;

export interface CoordinatorOptions {
  readonly config: Config;
  readonly runDir: string;
  /** Where dashboard and metrics listen, without login or TLS. @default 127.0.0.1, whatever cluster.host is */
  readonly httpHost?: string;
  /** "auto" continues the run the directory holds; its journal says where. */
  readonly resume?: "auto";
  /** Go on although settings that change results differ from those the run was started with. */
  readonly allowDrift?: boolean;
  /** Wait for the coordinator that leads the run, and go on with it when that one is gone. */
  readonly standby?: boolean;
  /** Which workers' machines are fit for the run. @default all */
  readonly admitWorker?: AdmitWorker;
  readonly signal: AbortSignal;
}

/**
 * Runs until the stages are done, or until the run ends for those who stand by while this process does.
 * @throws {TroupeError} CANCELLED when somebody stopped the run or this process, or why the run failed
 */
export async function runCoordinator(options: CoordinatorOptions): Promise<void> {
  const { config, signal, standby = false, allowDrift = false, admitWorker } = options;
  const runDir = resolve(options.runDir);
  const credentials = readCredentials(config);
  const mayContinue = options.resume === "auto";
  const durability = await openDurability({ config, runDir, standby, mayContinue, allowDrift, signal });
  if (durability === undefined) return;
  const isResumed = followsAnother({ mayContinue, standby }, durability.recovered);
  const coordinator = await openCoordinator({ config, runDir, durability, ...credentials, signal });
  const { end, host, directory, metrics, bus, clock, logger } = coordinator;
  const endpoints = await openEndpoints(coordinator, {
    ...{ ...credentials, httpHost: options.httpHost, admitWorker, isResumed },
  });

  let tokenizer: TokenizerPool | undefined;
  let endedBy: unknown;
  try {
    tokenizer = await TokenizerPool.open(
      await resolveTokenizerDirectory(config.model, config.data, join(runDir, "tokenizer")),
    );
    const run = await openRunContext(coordinator, tokenizer);
    metrics.runActive.set(1);
    await Promise.race([runStages(run, clock, () => end.begin()), end.whenStopped()]);
    bus.publish({ type: "run-finished", outcome: "succeeded", elapsedMs: clock.seconds * 1000 });
    logger.info({ seconds: clock.seconds }, "run finished");
  } catch (thrown) {
    // A stage that failed because the run was stopped reports why it was stopped.
    endedBy = end.signal.aborted ? end.signal.reason : thrown;
    tellFailure(coordinator, endedBy);
    end.stop(endedBy);
    throw endedBy;
  } finally {
    end.close();
    if (end.isOver) host.dispatch({ type: "RunClosing" });
    metrics.runActive.set(0);
    // A core that stopped the run releases nobody any more: then the closing server is what workers notice.
    await whenEmpty(directory, end.isOver && host.state.volatile.stopped === null ? DRAIN_MS : 0);
    await endpoints.close(end.isOver ? GRACE_MS : 0);
    await tokenizer?.close();
    await coordinator.close(endedBy);
  }
}

function tellFailure({ end, bus, clock, logger }: Coordinator, error: unknown): void {
  const isCancelled = errorCodeOf(error) === "CANCELLED";
  if (!isCancelled) logger.error({ err: error }, "run failed");
  if (end.isHandedOver) return;
  bus.publish({
    type: "run-finished",
    outcome: isCancelled ? "cancelled" : "failed",
    elapsedMs: clock.seconds * 1000,
    error: describeError(error),
  });
}

/** Workers hear with their next heartbeat that the run is over, and leave. */
async function whenEmpty(directory: WorkerDirectory, patienceMs: number): Promise<void> {
  const deadlineMs = performance.now() + patienceMs;
  while (directory.list().length > 0 && performance.now() < deadlineMs) await sleep(50);
}
