/** Workers of one machine for a coordinator that runs elsewhere. */
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { resolve } from "node:path";
import type { ClientTls } from "../rpc/tls.js";
import { cancelled } from "../shared/abort.js";
import { configError } from "../shared/errors.js";
import { ProgressView } from "./progress-view.js";
import type { RestartPolicy } from "./restart-budget.js";
import { runCommand } from "./run-commands.js";
import { parseCoordinatorAddresses } from "../worker/coordinator-addresses.js";
import { RETIRE_GRACE_MS, Supervisor, type SupervisorOptions } from "./supervisor.js";
import type { TextStream } from "./terminal.js";
import type { WorkerRole } from "../shared/roles.js";

export interface LaunchWorkersOptions {
  /** As workers take it: see worker/coordinator-addresses.ts. */
  readonly coordinator: string;
  readonly tokenFile: string | null;
  readonly tls?: ClientTls;
  /** Send the token in plaintext to other machines, too. */
  readonly insecure: boolean;
  readonly counts: Readonly<Record<WorkerRole, number>>;
  readonly gpus: readonly number[];
  readonly logDir: string;
  readonly policy?: Partial<RestartPolicy>;
  readonly stream: TextStream;
  readonly signal: AbortSignal;
  readonly commandFor?: SupervisorOptions["commandFor"];
}

/** Of a host name in a worker's: the coordinator takes 63 in all. */
const HOST_CHARACTERS = 40;

/**
 * Names for the workers of one launcher, which they keep when they start again. Whoever registers under a name takes it
 * from who has it, and other launchers start workers too: elsewhere, perhaps under the same host name, or here.
 */
export function workerNames(host = hostname()): (name: string) => string {
  const suffix = `${host.split(".")[0].slice(0, HOST_CHARACTERS)}-${randomBytes(3).toString("hex")}`;
  return (name) => `${name}-${suffix}`;
}

/**
 * Keeps the workers alive until all have left (the run is over) or `signal` aborts.
 * @throws {TroupeError} CANCELLED, BUDGET, or the code of a failure that a restart cannot cure
 */
export async function launchWorkers(options: LaunchWorkersOptions): Promise<void> {
  const { counts, signal, coordinator } = options;
  if (counts.rollout + counts.learner === 0)
    throw configError("nothing to start: give --rollouts or --learners");
  parseCoordinatorAddresses(coordinator, { insecure: options.insecure });
  const logDir = resolve(options.logDir);
  const view = new ProgressView({ stream: options.stream });
  const workerName = workerNames();
  const commandFor: SupervisorOptions["commandFor"] = (role, index, restarts) => {
    const command = runCommand(
      {
        logDir,
        tokenFile: options.tokenFile === null ? null : resolve(options.tokenFile),
        tls: options.tls,
        insecure: options.insecure,
        gpus: options.gpus,
        coordinatorAddress: () => coordinator,
        coordinatorArgs: () => [],
        together: counts,
        workerName,
      },
      role,
      index,
      restarts,
    );
    return command;
  };
  const supervisor = new Supervisor({
    commandFor: options.commandFor ?? commandFor,
    onEvent: (event) => view.supervisorEvent(event),
    onLeave: "done",
    policy: options.policy,
  });
  const stopped = new Promise<void>((done) => signal.addEventListener("abort", () => done(), { once: true }));
  try {
    if (signal.aborted) throw cancelled(signal);
    supervisor.scale("learner", counts.learner);
    supervisor.scale("rollout", counts.rollout);
    await Promise.race([supervisor.outcome, stopped]);
    if (signal.aborted) throw cancelled(signal);
  } finally {
    if (signal.aborted) view.stopping();
    await supervisor.stop({ graceMs: RETIRE_GRACE_MS });
    view.close();
  }
}
