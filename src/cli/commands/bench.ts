/** `troupe bench`: our programs and their peers, in turn on this machine. */
import { writeFileSync } from "node:fs";
import type { Command } from "commander";
import { InvalidArgumentError } from "commander";
import { configError } from "../../shared/errors.js";

export function registerBench(program: Command): void {
  program
    .command("bench")
    .description(
      "measure speed and memory, against PyTorch where TROUPE_PEER_PYTHON names a Python that has it",
    )
    .argument("<name...>", `what to measure; "list" prints the names`)
    .option("--json <file>", "write the rows as JSON")
    .option("--threads <number>", "threads of each side", wholeNumber, 2)
    .option("--rounds <number>", "measured turns per side; the median counts", wholeNumber, 7)
    .option("--only <text>", "only configurations that contain this text", "")
    .action(async (names: string[], options: BenchCommandOptions) => {
      const { BENCHMARKS } = await import("../../bench/benchmarks.js");
      const { lineOf, tableOf } = await import("../../bench/row.js");
      const known = Object.keys(BENCHMARKS);
      if (names.includes("list")) {
        console.log(known.join("\n"));
        return;
      }
      const unknown = names.find((name) => !known.includes(name));
      if (unknown !== undefined)
        throw configError(`bench: expected one of ${known.join(", ")}, got ${unknown}`);
      const rows = [];
      for (const name of names) {
        for await (const row of BENCHMARKS[name](options)) {
          rows.push(row);
          // A run that is cut short keeps what it has measured.
          console.error(lineOf(row));
          if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(rows, null, 2)}\n`);
        }
      }
      console.log(tableOf(rows));
    });
}

interface BenchCommandOptions {
  readonly json?: string;
  readonly threads: number;
  readonly rounds: number;
  readonly only: string;
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1)
    throw new InvalidArgumentError("expected a whole number from 1.");
  return value;
}
