/** `troupe chat`: talk to a model in the terminal. */
import type { Command } from "commander";
import type { ChatMessage } from "../../data/types.js";
import { describeError, errorCodeOf } from "../../shared/errors.js";
import type { Lifetime } from "../lifetime.js";
import { addModelOptions, samplingOf, type ModelCommandOptions } from "../sampling-options.js";

export function registerChat(program: Command, lifetime: Lifetime): void {
  const command = program.command("chat").description("talk to a model; /clear starts over, /quit ends");
  addModelOptions(command).action(async (options: ModelCommandOptions) => {
    const [{ LocalModel }, { createInterface }, { escapeControlLines }] = await Promise.all([
      import("../local-model.js"),
      import("node:readline/promises"),
      import("../../observability/text.js"),
    ]);
    const { signal } = lifetime;
    const sampling = samplingOf(options);
    const model = await LocalModel.open(options.model, { ...options, slots: 1 });
    const isChatModel = model.tokenizer.info.hasChatTemplate && options.promptTemplate === undefined;
    const terminal = createInterface({
      input: process.stdin,
      output: process.stdout,
      terminal: process.stdin.isTTY,
    });
    signal.addEventListener("abort", () => terminal.close(), { once: true });
    terminal.on("SIGINT", () => terminal.close());
    const messages: ChatMessage[] = [];
    try {
      console.log(`${model.directory}  (/clear starts over, /quit ends)`);
      console.log(
        isChatModel ? "The model sees the whole conversation." : "Each line is a prompt of its own.",
      );
      const prompt = () => process.stdin.isTTY && terminal.prompt();
      terminal.setPrompt("> ");
      prompt();
      for await (const line of terminal) {
        const text = line.trim();
        if (text === "/quit" || text === "/exit") break;
        if (text === "/clear") messages.length = 0;
        else if (text !== "") await answer(text);
        prompt();
      }
    } finally {
      terminal.close();
      await model.close();
    }

    /** What one line is wrong with, such as a conversation longer than the model can read, does not end the others. */
    async function answer(text: string): Promise<void> {
      try {
        console.log(escapeControlLines(await respond(text)));
      } catch (error) {
        if (errorCodeOf(error) !== "DATA") throw error;
        const remedy = isChatModel ? " (/clear starts over)" : "";
        console.error(escapeControlLines(`error: ${describeError(error)}${remedy}`));
      }
    }

    async function respond(text: string): Promise<string> {
      if (!isChatModel) return (await model.answer([text], sampling))[0].text.trim();
      const asked: ChatMessage = { role: "user", content: text };
      const { text: reply } = await model.reply([...messages, asked], sampling);
      messages.push(asked, { role: "assistant", content: reply });
      return reply.trim();
    }
  });
}
