/** `troupe doctor`: what this machine offers, and what is missing. */
import type { Command } from "commander";
import { wholeNumber } from "../options.js";

interface DoctorOptions {
  readonly config?: string;
  readonly set?: string[];
  readonly port?: number[];
}

export function registerDoctor(program: Command): void {
  program
    .command("doctor")
    .description("show node, cores, memory, engines and ports, and what is missing")
    .option("--config <file>", "also estimate the memory each role of this config needs")
    .option(
      "--set <a.b=value>",
      "set one field of that config; may be repeated",
      (value: string, previous: string[] = []) => [...previous, value],
    )
    .option(
      "--port <n>",
      "check that this port is free; may be repeated",
      (text: string, previous: number[] = []) => [...previous, wholeNumber(1, 65_535)(text)],
    )
    .action(async (options: DoctorOptions) => {
      const { examine } = await import("../doctor.js");
      const { lines, isHealthy } = await examine(options);
      for (const line of lines) console.log(line);
      if (!isHealthy) process.exitCode = 1;
    });
}
