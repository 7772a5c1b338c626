/** `troupe config print | validate | schema | docs`. */
import type { Command } from "commander";
import { addConfigOptions, loadForCommand, type ConfigOptions } from "../options.js";

export function registerConfig(program: Command): void {
  const config = program.command("config").description("check a config, or see what it can hold");

  addConfigOptions(config.command("print").description("print the complete config, defaults included"))
    .option("--json", "as JSON")
    .action(async (file: string, options: ConfigOptions & { json?: boolean }) => {
      const { config: complete, warnings } = await loadForCommand(file, options);
      for (const warning of warnings) console.error(`note: ${warning}`);
      if (options.json === true) return console.log(JSON.stringify(complete, null, 2));
      const { stringify } = await import("yaml");
      console.log(stringify(complete).trimEnd());
    });

  addConfigOptions(
    config.command("validate").description("check a config; exit code 2 when something is wrong"),
  ).action(async (file: string, options: ConfigOptions) => {
    const { derived, warnings } = await loadForCommand(file, options);
    for (const warning of warnings) console.log(`note: ${warning}`);
    console.log(`${file} is valid`);
    for (const [name, value] of Object.entries(derived)) console.log(`  ${name}: ${value}`);
  });

  config
    .command("schema")
    .description("print the JSON schema, for editors")
    .action(async () => {
      const { configJsonSchema } = await import("../../config/schema-node.js");
      console.log(JSON.stringify(configJsonSchema(), null, 2));
    });

  config
    .command("docs")
    .description("print docs/configuration.md")
    .action(async () => {
      const { renderConfigDocs } = await import("../../config/docs.js");
      process.stdout.write(renderConfigDocs());
    });
}
