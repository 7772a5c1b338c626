/** `troupe launch`: workers of this machine for a coordinator elsewhere. */
import type { Command } from "commander";
import type { Lifetime } from "../lifetime.js";
import { addAccessOptions, clientTlsOf, wholeNumber, type AccessOptions } from "../options.js";

interface LaunchCommandOptions extends AccessOptions {
  readonly coordinator: string;
  readonly rollouts: number;
  readonly learners: number;
  readonly gpus?: string;
  readonly logDir: string;
  readonly maxRestarts: number;
}

export function registerLaunch(program: Command, lifetime: Lifetime): void {
  const command = program
    .command("launch")
    .description("start workers on this machine for a coordinator elsewhere, and keep them alive")
    .requiredOption(
      "--coordinator <host:port>",
      "HOST:PORT of the coordinator; several, or nats://HOST:PORT/RUN, with a standby",
    );
  addAccessOptions(command)
    .option("--rollouts <n>", "rollout processes", wholeNumber(0, 4096), 1)
    .option("--learners <n>", "learner processes", wholeNumber(0, 4096), 0)
    .option("--gpus <list>", "GPU numbers to spread the workers over, e.g. 0,1")
    .option("--log-dir <dir>", "folder for one log per process", "logs")
    .option("--max-restarts <n>", "restarts of one role within 10 min before giving up", wholeNumber(0), 10)
    .action(async (options: LaunchCommandOptions) => {
      const { signal } = lifetime;
      const [{ launchWorkers }, { gpuNote, parseGpuList }] = await Promise.all([
        import("../../launcher/launch-workers.js"),
        import("../../launcher/gpus.js"),
      ]);
      const counts = { rollout: options.rollouts, learner: options.learners };
      const gpus = options.gpus === undefined ? [] : parseGpuList(options.gpus);
      const note = gpuNote(counts, gpus);
      if (note !== null) console.error(`note: ${note}`);
      await launchWorkers({
        coordinator: options.coordinator,
        tokenFile: options.tokenFile ?? null,
        tls: clientTlsOf(options),
        insecure: options.insecure ?? false,
        counts,
        gpus,
        logDir: options.logDir,
        policy: { maxRestarts: options.maxRestarts },
        stream: process.stdout,
        signal,
      });
    });
}
