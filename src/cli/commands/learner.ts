/** `troupe learner`: a process that trains. */
import type { Command } from "commander";
import type { Lifetime } from "../lifetime.js";
import { defineWorkerCommand } from "../worker-command.js";

export function registerLearner(program: Command, lifetime: Lifetime): void {
  const command = program
    .command("learner")
    .description("join a run as a learner: train on what was collected");
  defineWorkerCommand(
    command,
    lifetime,
    async () => (await import("../../learner/run-learner.js")).runLearner,
  );
}
