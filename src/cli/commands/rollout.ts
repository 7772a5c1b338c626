/** `troupe rollout`: a process that generates and scores answers. */
import type { Command } from "commander";
import type { Lifetime } from "../lifetime.js";
import { defineWorkerCommand } from "../worker-command.js";

export function registerRollout(program: Command, lifetime: Lifetime): void {
  const command = program
    .command("rollout")
    .description("join a run as a rollout worker: generate and score answers");
  defineWorkerCommand(
    command,
    lifetime,
    async () => (await import("../../rollout/run-rollout.js")).runRollout,
  );
}
