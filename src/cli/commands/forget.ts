/** `troupe forget CONFIG`: deletes what NATS keeps of a run that is done. */
import type { Command } from "commander";
import { configError } from "../../shared/errors.js";
import type { Lifetime } from "../lifetime.js";
import { addConfigOptions, loadForCommand, type ConfigOptions } from "../options.js";

interface ForgetOptions extends ConfigOptions {
  readonly force?: boolean;
}

export function registerForget(program: Command, lifetime: Lifetime): void {
  const command = program
    .command("forget")
    .description("delete what NATS keeps of a run that is done (cluster.durable); run directories stay");
  addConfigOptions(command)
    .option("--force", "also when the run could go on")
    .action(async (file: string, options: ForgetOptions) => {
      const { config } = await loadForCommand(file, options);
      const { durable } = config.cluster;
      if (durable.type !== "nats")
        throw configError(`cluster.durable of ${file} is ${durable.type}: NATS keeps nothing of this run`);
      const [{ forgetRun }, { natsRunOf }] = await Promise.all([
        import("../../coordinator/standby-forget.js"),
        import("../../coordinator/standby-durability.js"),
      ]);
      const run = natsRunOf(config.name, durable.run);
      const bytes = await forgetRun({
        nats: { ...durable, run },
        force: options.force ?? false,
        signal: lifetime.signal,
      });
      console.log(`NATS keeps nothing of ${run} any more: ${(bytes / 1e6).toFixed(1)} MB are free`);
    });
}
