/** What `troupe rollout` and `troupe learner` share. */
import type { Command } from "commander";
import type { WorkerOptions } from "../worker/worker-options.js";
import type { Lifetime } from "./lifetime.js";
import { addAccessOptions, clientTlsOf, wholeNumber, type AccessOptions } from "./options.js";

interface WorkerCommandOptions extends AccessOptions {
  readonly coordinator: string;
  readonly workerId?: string;
  readonly httpHost?: string;
  readonly httpPort?: number;
  readonly logDir?: string;
  readonly hostRollouts?: number;
  readonly hostLearners?: number;
}

/** @param load imports the role's body; called when the command runs */
export function defineWorkerCommand(
  command: Command,
  lifetime: Lifetime,
  load: () => Promise<(options: WorkerOptions) => Promise<void>>,
): void {
  command.requiredOption(
    "--coordinator <host:port>",
    "HOST:PORT of the coordinator (see DIR/coordinator.json); HOST:PORT,HOST:PORT or nats://HOST:PORT/RUN with a standby",
  );
  addAccessOptions(command)
    .option("--worker-id <name>", "wanted name, such as rollout-0 (default: the coordinator picks one)")
    .option("--http-host <address>", "address of /metrics and /healthz (default: 127.0.0.1)")
    .option("--http-port <n>", "its port (default: a free one)", wholeNumber(0, 65_535))
    .option("--log-dir <dir>", "folder for this process's log file (default: stderr only)")
    .option("--host-rollouts <n>", "rollout workers started on this machine together", wholeNumber(0, 4096))
    .option("--host-learners <n>", "learner workers started on this machine together", wholeNumber(0, 4096))
    .action(async (options: WorkerCommandOptions) => {
      const { signal } = lifetime;
      const run = await load();
      const { hostRollouts, hostLearners } = options;
      const together = { rollouts: hostRollouts, learners: hostLearners };
      await run({ ...options, tls: clientTlsOf(options), together, signal });
    });
}
