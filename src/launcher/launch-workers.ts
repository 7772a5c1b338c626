/** Workers of one machine for a coordinator that runs elsewhere. */
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
        // Names must be unique in the run, and other machines start workers too.
        workerName: (name) => `${name}-${hostname().split(".")[0]}`,
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
