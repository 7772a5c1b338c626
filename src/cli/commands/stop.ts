/** `troupe stop`: ends a run for all of its processes; `--resume auto` goes on with it. */
import type { Command } from "commander";
import { askCoordinator } from "../connection.js";
import { addConnectionOptions, type ConnectionOptions } from "../options.js";

interface StopOptions extends ConnectionOptions {
  readonly reason: string;
}

export function registerStop(program: Command): void {
  const command = program
    .command("stop")
    .description(
      "end a run on every machine, coordinators that stand by included; --resume auto goes on with it",
    );
  addConnectionOptions(command)
    .option("--reason <text>", "said by every process that ends", "asked to stop")
    .action(async ({ reason, ...options }: StopOptions) => {
      await askCoordinator(options, (control) => control.stop(reason));
      console.log("the run ends; go on with it by --resume auto");
    });
}
