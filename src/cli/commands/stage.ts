/** `troupe sft | reward | ppo`: one stage of a config. */
import type { Command } from "commander";
import type { StageName } from "../../config/schema.js";
import type { Lifetime } from "../lifetime.js";
import { addConfigOptions, addRunOptions, type RunOptions } from "../options.js";
import { runConfig } from "./run.js";

const DESCRIPTIONS: Readonly<Record<StageName, string>> = {
  sft: "run only supervised fine-tuning",
  reward: "run only the reward model",
  ppo: "run only ppo",
};

export function registerStage(program: Command, lifetime: Lifetime, stage: StageName): void {
  const command = program.command(stage).description(DESCRIPTIONS[stage]);
  addRunOptions(addConfigOptions(command)).action((file: string, options: RunOptions) =>
    runConfig(file, options, lifetime.signal, { stages: [stage] }),
  );
}
