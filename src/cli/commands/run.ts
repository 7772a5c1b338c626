/** `troupe run`: all stages of a config on this machine. */
import type { Command } from "commander";
import type { Lifetime } from "../lifetime.js";
import { checkMachine } from "../check-machine.js";
import { addConfigOptions, addRunOptions, configFlags, loadForCommand, type RunOptions } from "../options.js";

export function registerRun(program: Command, lifetime: Lifetime): void {
  const command = program.command("run").description("run the stages of a config on this machine");
  addRunOptions(addConfigOptions(command)).action((file: string, options: RunOptions) =>
    runConfig(file, options, lifetime.signal),
  );
}

/** @param flags fields a command fixes, such as `stages` */
export async function runConfig(
  file: string,
  options: RunOptions,
  signal: AbortSignal,
  flags: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  const loaded = await loadForCommand(file, options, { ...configFlags(options), ...flags });
  const gpus = await checkMachine(loaded.config, options);
  const [{ performRun }, { defaultRunDirectory }] = await Promise.all([
    import("../../launcher/perform-run.js"),
    import("../../launcher/run-directory.js"),
  ]);
  await performRun({
    loaded,
    runDir: options.runDir ?? defaultRunDirectory(loaded.config.name, new Date()),
    resume: options.resume,
    allowDrift: options.allowDrift,
    gpus,
    policy: { maxRestarts: options.maxRestarts },
    signal,
    stream: process.stdout,
  });
}
