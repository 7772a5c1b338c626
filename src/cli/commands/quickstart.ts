/** `troupe quickstart`: the three stages on a small data set made on the spot. */
import { Option, type Command } from "commander";
import type { QuickstartPresetName } from "../../config/presets.js";
import type { Lifetime } from "../lifetime.js";
import { checkMachine } from "../check-machine.js";
import { addRunOptions, configFlags, type RunOptions } from "../options.js";

interface QuickstartOptions extends RunOptions {
  readonly preset: QuickstartPresetName;
}

export function registerQuickstart(program: Command, lifetime: Lifetime): void {
  const command = program
    .command("quickstart")
    .description("train a small model with RLHF on this machine, in minutes")
    .addOption(
      new Option("--preset <name>", "quickstart: learns something; tiny: only shows that everything works")
        .choices(["quickstart", "tiny"])
        .default("quickstart"),
    )
    .option(
      "--set <a.b=value>",
      "set one field of the config; may be repeated",
      (value: string, previous: string[] = []) => [...previous, value],
    );
  addRunOptions(command).action(async (options: QuickstartOptions) => {
    const { signal } = lifetime;
    const [{ performRun }, { defaultRunDirectory }, quickstart] = await Promise.all([
      import("../../launcher/perform-run.js"),
      import("../../launcher/run-directory.js"),
      import("../../launcher/quickstart.js"),
    ]);
    const { preset } = options;
    const runDir = options.runDir ?? defaultRunDirectory(preset, new Date());
    const loaded = quickstart.quickstartConfig({
      preset,
      runDir,
      env: process.env,
      sets: options.set,
      flags: configFlags(options),
    });
    const gpus = await checkMachine(loaded.config, options);
    await performRun({
      loaded,
      runDir,
      resume: options.resume,
      allowDrift: options.allowDrift,
      gpus,
      policy: { maxRestarts: options.maxRestarts },
      signal,
      stream: process.stdout,
      prepare: (directory) => quickstart.writeQuickstartData(directory.path, preset, loaded.config.seed),
      complete: quickstart.withGoldScore,
    });
  });
}
