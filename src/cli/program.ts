/** All commands. Each registers its options here and imports its work only when it runs, so `--help` stays fast. */
import { Command } from "commander";
import { packageVersion } from "../shared/paths.js";
import { registerBench } from "./commands/bench.js";
import { registerCerts } from "./commands/certs.js";
import { registerChaos } from "./commands/chaos.js";
import { registerChat } from "./commands/chat.js";
import { registerConfig } from "./commands/config.js";
import { registerCoordinator } from "./commands/coordinator.js";
import { registerDoctor } from "./commands/doctor.js";
import { registerExport } from "./commands/export.js";
import { registerForget } from "./commands/forget.js";
import { registerGenerate } from "./commands/generate.js";
import { registerLaunch } from "./commands/launch.js";
import { registerLearner } from "./commands/learner.js";
import { registerQuickstart } from "./commands/quickstart.js";
import { registerRollout } from "./commands/rollout.js";
import { registerRun } from "./commands/run.js";
import { registerScale } from "./commands/scale.js";
import { registerStage } from "./commands/stage.js";
import { registerStatus } from "./commands/status.js";
import { registerStop } from "./commands/stop.js";
import { registerVerify } from "./commands/verify.js";
import type { Lifetime } from "./lifetime.js";

export function buildProgram(lifetime: Lifetime): Command {
  const program = new Command("troupe")
    .description("RLHF in TypeScript: SFT, reward model and PPO as a fleet of Node processes")
    .version(packageVersion, "-V, --version")
    .option("--debug", "show stack traces")
    .showSuggestionAfterError(true)
    .showHelpAfterError("(see --help)");

  program.commandsGroup("Train on this machine:");
  registerQuickstart(program, lifetime);
  registerRun(program, lifetime);
  for (const stage of ["sft", "reward", "ppo"] as const) registerStage(program, lifetime, stage);

  program.commandsGroup("Use a model:");
  registerChat(program, lifetime);
  registerGenerate(program, lifetime);
  registerExport(program);

  program.commandsGroup("Single processes, for clusters:");
  registerCoordinator(program, lifetime);
  registerRollout(program, lifetime);
  registerLearner(program, lifetime);
  registerLaunch(program, lifetime);
  registerStatus(program);
  registerScale(program);
  registerStop(program);
  registerForget(program, lifetime);
  registerCerts(program);

  program.commandsGroup("Check:");
  registerConfig(program);
  registerDoctor(program);
  registerVerify(program, lifetime);
  registerChaos(program, lifetime);
  registerBench(program);
  // Subcommands inherit this only when it is set before they are made; verify and others made their own.
  for (const command of everyCommand(program)) command.exitOverride();
  return program;
}

const everyCommand = (command: Command): Command[] => [command, ...command.commands.flatMap(everyCommand)];
