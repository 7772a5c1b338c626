/** `troupe scale rollout=4 learner=2`: how many processes a running run should have. */
import type { Command } from "commander";
import { configError } from "../../shared/errors.js";
import { askCoordinator } from "../connection.js";
import { addConnectionOptions, type ConnectionOptions } from "../options.js";
import type { WorkerRole } from "../../shared/roles.js";

export function registerScale(program: Command): void {
  const command = program
    .command("scale")
    .description("change the number of worker processes of a run while it goes on")
    .argument("<role=count...>", "rollout=N and/or learner=N");
  addConnectionOptions(command).action(async (wanted: string[], options: ConnectionOptions) => {
    const counts = wanted.map(parseCount);
    await askCoordinator(options, async (control) => {
      for (const { role, count } of counts) {
        const desired = await control.scale(role, count);
        console.log(`${role}: ${desired[role] ?? count} wanted`);
      }
    });
  });
}

function parseCount(text: string): { role: WorkerRole; count: number } {
  const [, role, digits] = /^(rollout|learner)s?=(\d{1,4})$/.exec(text) ?? [];
  if (role === undefined) throw configError(`expected rollout=N or learner=N, got ${JSON.stringify(text)}`);
  return { role: role as WorkerRole, count: Number(digits) };
}
