import { fork, type ChildProcess } from "node:child_process";
import { dataError } from "../shared/errors.js";
import { builtFile } from "../shared/paths.js";
import type { RenderReply, RenderRequest } from "./chat-template-child.js";
import type { ChatMessage } from "./types.js";

/** Heap of the rendering process. A template needs a few megabytes; loading a large tokenizer about 150. */
const HEAP_CAP_MIB = 256;
const BATCH = 256;

/**
 * Runs chat templates in a child process with a heap cap and a deadline, started at the first call. After a failure
 * that took the child with it, the next call starts a new one.
 */
export class ChatTemplateProcess {
  #child: ChildProcess | null = null;
  #nextId = 0;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(
    readonly directory: string,
    readonly timeoutMs: number,
  ) {}

  /**
   * Renders conversations in order.
   * @throws {TroupeError} DATA when the template fails, takes too long or takes too much memory
   */
  render(
    conversations: readonly (readonly ChatMessage[])[],
    addGenerationPrompt: boolean,
  ): Promise<string[]> {
    const job = this.#queue.then(async () => {
      const texts: string[] = [];
      for (let start = 0; start < conversations.length; start += BATCH) {
        texts.push(
          ...(await this.#renderBatch(conversations.slice(start, start + BATCH), addGenerationPrompt)),
        );
      }
      return texts;
    });
    // One request at a time: a crash must not be blamed on another caller's conversations.
    this.#queue = job.catch(() => undefined);
    return job;
  }

  close(): void {
    this.#child?.kill("SIGKILL");
    this.#child = null;
  }

  #start(): ChildProcess {
    const child = fork(builtFile("src/data/chat-template-child"), [], {
      execArgv: [`--max-old-space-size=${HEAP_CAP_MIB}`],
      stdio: ["ignore", "ignore", "ignore", "ipc"],
      serialization: "advanced",
    });
    child.unref();
    child.channel?.unref();
    return child;
  }

  #renderBatch(
    conversations: readonly (readonly ChatMessage[])[],
    addGenerationPrompt: boolean,
  ): Promise<string[]> {
    const child = (this.#child ??= this.#start());
    const request: RenderRequest = {
      id: this.#nextId++,
      directory: this.directory,
      conversations,
      addGenerationPrompt,
    };
    const fail = (what: string) => dataError(`chat template of ${this.directory} ${what}`);
    return new Promise((resolve, reject) => {
      // Settling twice is harmless: only the first counts.
      const settle = (finish: () => void): void => {
        clearTimeout(timer);
        child.off("message", onMessage);
        child.off("exit", onExit);
        child.off("error", onError);
        finish();
      };
      const giveUp = (what: string): void =>
        settle(() => {
          this.close();
          reject(fail(what));
        });
      const timer = setTimeout(
        () => giveUp(`did not finish within ${this.timeoutMs} ms; the rendering process was ended`),
        this.timeoutMs,
      );
      const onMessage = (reply: RenderReply): void => {
        if (reply.id !== request.id) return;
        settle(() => ("error" in reply ? reject(fail(`failed: ${reply.error}`)) : resolve([...reply.texts])));
      };
      const onExit = (code: number | null, signal: string | null): void =>
        giveUp(
          `ended its rendering process (${signal ?? `exit ${code}`}), most likely past its heap of ${HEAP_CAP_MIB} MiB`,
        );
      const onError = (error: Error): void => giveUp(`could not be rendered: ${error.message}`);
      child.on("message", onMessage);
      child.on("exit", onExit);
      child.on("error", onError);
      child.send(request, (error) => {
        if (error !== null) onError(error);
      });
    });
  }
}
