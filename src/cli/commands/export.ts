/** `troupe export`: a model in the format of another program. */
import { Option, type Command } from "commander";
import type { ExportFormat } from "../../export/export-model.js";

interface ExportOptions {
  readonly model: string;
  readonly format: ExportFormat;
  readonly out: string;
  readonly adapter?: string;
}

export function registerExport(program: Command): void {
  program
    .command("export")
    .description("write a model for transformers (hf) or for transformers.js and ONNX runtimes (onnx)")
    .requiredOption("--model <dir>", "Hugging Face model folder, e.g. runs/<run>/models/ppo")
    .addOption(new Option("--format <name>", "what to write").choices(["hf", "onnx"]).makeOptionMandatory())
    .requiredOption("--out <dir>", "folder to write")
    .option("--adapter <dir>", "merge this PEFT adapter into the model first")
    .action(async (options: ExportOptions) => {
      const { exportModel } = await import("../../export/export-model.js");
      const { spec, parameters, warnings } = await exportModel(options);
      for (const warning of warnings) console.error(`note: ${warning}`);
      const size = `${(parameters / 1e6).toFixed(1)} M parameters`;
      console.log(`${options.out}: ${spec.family}, ${size}, ${options.format}`);
    });
}
