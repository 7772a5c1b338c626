/**
 * A whole run on this machine: one coordinator, R rollout workers and L learners as real processes, kept alive until
 * the coordinator says that the run is done.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { rm } from "node:fs/promises";
import type { Config } from "../config/schema.js";
import { cancelled, sleep } from "../shared/abort.js";
import { configError, describeError } from "../shared/errors.js";
import {
  clientTlsOfConfig,
  connectControl,
  controlAccess,
  type ConnectControl,
  type Control,
} from "./control.js";
import type { CoordinatorFile } from "../shared/coordinator-file.js";
import { portOf, urlOf, waitForCoordinator } from "./find-coordinator.js";
import { ProgressFeed } from "./progress-feed.js";
import type { ProgressView } from "./progress-view.js";
import type { RestartPolicy } from "./restart-budget.js";
import type { RunDirectory } from "./run-directory.js";
import { runCommand } from "./run-commands.js";
import { Supervisor, type SupervisorEvent, type SupervisorOptions } from "./supervisor.js";

export interface LaunchOptions {
  readonly config: Config;
  /** Already locked; the caller releases it. */
  readonly directory: RunDirectory;
  /** GPU numbers to spread the workers over. */
  readonly gpus?: readonly number[];
  readonly view: ProgressView;
  readonly signal: AbortSignal;
  readonly policy?: Partial<RestartPolicy>;
  /** How long workers may take to leave by themselves when the coordinator ends the run. @default 3_000 */
  readonly patienceMs?: number;
  /** How long the coordinator may take to listen, and how often a wait is noted. @default 600_000, 30_000 */
  readonly listen?: { readonly timeoutMs: number; readonly noteMs: number };
  readonly connect?: ConnectControl;
  /** Replaces the command line of every process: tests start small programs instead. */
  readonly commandFor?: SupervisorOptions["commandFor"];
  /** Told of every start and end of a process, besides the view. */
  readonly onProcess?: (event: SupervisorEvent) => void;
}

/** A coordinator that lives is reading data, model or journal: how long that takes is not known here. */
const LISTEN_TIMEOUT_MS = 600_000;
const LISTEN_NOTE_MS = 30_000;
const POLL_DESIRED_MS = 1_000;
const LEAVE_BY_THEMSELVES_MS = 3_000;

/**
 * Runs to the end.
 * @throws {TroupeError} CANCELLED when `signal` aborted (everything was stopped cleanly first)
 * @throws {TroupeError} BUDGET, or the code of the process whose failure a restart cannot cure
 */
export async function launch(options: LaunchOptions): Promise<void> {
  const { config, directory, view, signal } = options;
  const { timeoutMs, noteMs } = options.listen ?? { timeoutMs: LISTEN_TIMEOUT_MS, noteMs: LISTEN_NOTE_MS };
  const { cluster } = config;
  if (cluster.tls.cert !== null && cluster.tls.ca === null)
    throw configError(
      "cluster.tls.cert is set: the workers started here need cluster.tls.ca, the authority that signed it (ca.crt)",
    );
  let address: CoordinatorFile | undefined;
  const summaryPath = join(directory.path, "summary.json");
  // Old ones would be taken for this start's: the address of the coordinator, and the proof that the run is done.
  for (const name of ["coordinator.json", "summary.json"])
    await rm(join(directory.path, name), { force: true });

  const commandFor: SupervisorOptions["commandFor"] = (role, index, restarts) =>
    runCommand(
      {
        logDir: directory.logDir,
        tokenFile: cluster.tokenFile,
        tls: clientTlsOfConfig(cluster),
        insecure: cluster.insecure,
        gpus: options.gpus ?? [],
        coordinatorAddress: () => address?.grpcAddress ?? "",
        // After a restart the workers look for the coordinator where it was.
        coordinatorArgs: (again) => [
          ...[directory.configPath, "--run-dir", directory.path],
          ...(directory.isResumed || again > 0 ? ["--resume", "auto"] : []),
          ...(directory.allowsDrift ? ["--allow-drift"] : []),
          ...(address === undefined ? [] : ["--port", String(portOf(address.grpcAddress))]),
          ...(address === undefined ? [] : ["--http-port", String(portOf(address.httpAddress))]),
        ],
      },
      role,
      index,
      restarts,
    );
  const supervisor = new Supervisor({
    commandFor: options.commandFor ?? commandFor,
    onEvent: (event) => {
      view.supervisorEvent(event);
      options.onProcess?.(event);
    },
    isFinished: () => existsSync(summaryPath),
    policy: options.policy,
  });

  const ending = new AbortController();
  const onSignal = () => ending.abort(signal.reason);
  signal.addEventListener("abort", onSignal, { once: true });
  if (signal.aborted) onSignal();
  let followed: Promise<void> = Promise.resolve();
  let isFinished = false;
  try {
    supervisor.scale("coordinator", 1);
    const coordinatorPid = () => supervisor.child("coordinator", 0)?.pid;
    address = await Promise.race([
      waitForCoordinator(directory.path, coordinatorPid, timeoutMs, ending.signal, {
        intervalMs: noteMs,
        tell: (waitedMs) =>
          view.note(
            `the coordinator does not listen yet, after ${Math.round(waitedMs / 1000)} s; it writes to ${join(directory.logDir, "coordinator-0.log")}`,
          ),
      }),
      supervisor.outcome.then(() => undefined),
    ]);
    if (address !== undefined) {
      view.listening({
        url: urlOf(address.httpAddress),
        grpcAddress: address.grpcAddress,
        runDir: directory.path,
      });
      supervisor.scale("learner", cluster.learners);
      supervisor.scale("rollout", config.stages.includes("ppo") ? cluster.rollouts : 0);
      followed = follow(options, address, supervisor, ending.signal);
    }
    await Promise.race([supervisor.outcome, aborted(ending.signal)]);
    if (signal.aborted) throw cancelled(signal);
    isFinished = true;
  } finally {
    if (signal.aborted) view.stopping();
    await supervisor.stop({ patienceMs: isFinished ? (options.patienceMs ?? LEAVE_BY_THEMSELVES_MS) : 0 });
    ending.abort();
    signal.removeEventListener("abort", onSignal);
    await followed;
    view.close();
  }
}

/** Shows the coordinator's progress and keeps as many workers as it wants. */
async function follow(
  { config, connect = connectControl, view }: LaunchOptions,
  address: CoordinatorFile,
  supervisor: Supervisor,
  signal: AbortSignal,
): Promise<void> {
  const { cluster } = config;
  let control: Control;
  try {
    const access = await controlAccess(cluster.tokenFile, clientTlsOfConfig(cluster), cluster.insecure);
    control = await connect(address.grpcAddress, access);
  } catch (error) {
    view.note(`progress cannot be shown: ${describeError(error)}`);
    return;
  }
  try {
    await Promise.all([
      new ProgressFeed(control, view).run(signal),
      followDesired(control, supervisor, signal),
    ]);
  } finally {
    control.close();
  }
}

async function followDesired(control: Control, supervisor: Supervisor, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await sleep(POLL_DESIRED_MS, signal);
    if (signal.aborted) return;
    try {
      const { desired } = await control.status();
      for (const role of ["rollout", "learner"] as const) {
        const count = desired[role];
        if (count !== undefined) supervisor.scale(role, count);
      }
    } catch {
      // Not reachable at the moment: it restarts, or it is done. The supervisor sees which.
    }
  }
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
