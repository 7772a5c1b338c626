import { readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Piscina } from "piscina";
import { dataError, describeError, TroupeError } from "../shared/errors.js";
import { builtFile } from "../shared/paths.js";
import { ChatTemplateProcess } from "./chat-template-process.js";
import type { StopTable } from "./stop-table.js";
import type { DecodeTask, EncodeTask, OpenTask, Ragged, StopTableTask } from "./tokenize-thread.js";
import type { ChatMessage, DecodeOptions, EncodeOptions, TextTokenizer, TokenizerInfo } from "./types.js";

export interface TokenizerPoolOptions {
  /**
   * Longest a single batch may take, starting its thread included. A thousand ordinary rows take well under a second; the
   * rest is for machines that are busy with something else, as running past it ends the run. @default 120_000
   */
  readonly timeoutMs?: number;
  /** @default 1 */
  readonly threads?: number;
}

/** The largest published tokenizer.json is about 35 MB. */
const MAX_FILE_BYTES = 128 * 1024 * 1024;
/** Texts per task: small enough that the deadline bounds a hang tightly, large enough to hide the hand-over. */
const BATCH = 512;

const FILES = ["tokenizer.json", "tokenizer_config.json"] as const;

async function checkFiles(directory: string): Promise<void> {
  for (const name of FILES) {
    const path = join(directory, name);
    const info = await stat(path).catch((cause: unknown) => {
      throw dataError(
        `tokenizer directory ${directory} has no ${name}; expected tokenizer.json and tokenizer_config.json, as transformers' save_pretrained writes them (model.tokenizer can name another directory)`,
        { cause },
      );
    });
    if (info.size > MAX_FILE_BYTES) {
      throw dataError(
        `${path} is ${info.size} bytes; at most ${MAX_FILE_BYTES} bytes are read as a tokenizer`,
      );
    }
  }
}

/** Says which file is at fault when a tokenizer cannot be opened. */
async function checkJson(directory: string): Promise<void> {
  for (const name of FILES) {
    const path = join(directory, name);
    try {
      JSON.parse(await readFile(path, "utf8"));
    } catch (cause) {
      throw dataError(`${path} is not valid JSON; fetch or write the tokenizer again`, { cause });
    }
  }
}

function toRagged(sequences: readonly (Int32Array | readonly number[])[]): Ragged {
  const lengths = Int32Array.from(sequences, (ids) => ids.length);
  const ids = new Int32Array(lengths.reduce((sum, length) => sum + length, 0));
  let start = 0;
  for (const sequence of sequences) {
    ids.set(sequence, start);
    start += sequence.length;
  }
  return { ids, lengths };
}

function fromRagged({ ids, lengths }: Ragged): Int32Array[] {
  let start = 0;
  return Array.from(lengths, (length) => ids.slice(start, (start += length)));
}

/**
 * A tokenizer in a thread of its own. Every batch has a deadline: a pre-tokenizer regex that runs away is ended with
 * its thread, and the pool stays closed, as the same text would hang it again.
 */
export class TokenizerPool implements TextTokenizer {
  readonly #templates: ChatTemplateProcess;
  /** One chain of tasks per thread, so that a task's deadline starts when it does and not while it waits. */
  readonly #lanes: Promise<unknown>[];
  #nextLane = 0;
  #closedBecause: TroupeError | null = null;

  private constructor(
    readonly info: TokenizerInfo,
    readonly pool: Piscina,
    readonly timeoutMs: number,
    threads: number,
  ) {
    this.#lanes = Array.from({ length: threads }, () => Promise.resolve());
    this.#templates = new ChatTemplateProcess(info.directory, timeoutMs);
  }

  /**
   * Opens the tokenizer of a directory (local files only).
   * @throws {TroupeError} DATA when files are missing, too large, unreadable or take too long to load
   */
  static async open(directory: string, options: TokenizerPoolOptions = {}): Promise<TokenizerPool> {
    const { timeoutMs = 120_000, threads = 1 } = options;
    const absolute = resolve(directory);
    await checkFiles(absolute);
    const pool = new Piscina({
      filename: builtFile("src/data/tokenize-thread"),
      minThreads: 0,
      maxThreads: threads,
      idleTimeout: 30_000,
      atomics: "disabled",
    });
    // A thread that dies between tasks must not take this process along; the next task starts another and reports.
    pool.on("error", () => undefined);
    try {
      const info = await runWithDeadline<TokenizerInfo>(
        pool,
        "open",
        { directory: absolute } satisfies OpenTask,
        timeoutMs,
      );
      return new TokenizerPool(info, pool, timeoutMs, threads);
    } catch (error) {
      await pool.destroy();
      if (error instanceof TroupeError) throw error;
      await checkJson(absolute);
      throw dataError(`tokenizer of ${absolute} cannot be used: ${describeError(error)}`, { cause: error });
    }
  }

  async encode(texts: readonly string[], options: EncodeOptions = {}): Promise<Int32Array[]> {
    const batches = await this.#inBatches(texts, (batch) =>
      this.#run<Ragged>("encode", { directory: this.info.directory, texts: batch, ...options }),
    );
    return batches.flatMap(fromRagged);
  }

  async decode(
    sequences: readonly (Int32Array | readonly number[])[],
    options: DecodeOptions = {},
  ): Promise<string[]> {
    const { skipSpecialTokens = true } = options;
    const batches = await this.#inBatches(sequences, (batch) =>
      this.#run<string[]>("decode", {
        directory: this.info.directory,
        rows: toRagged(batch),
        skipSpecialTokens,
      }),
    );
    return batches.flat();
  }

  /** @throws {TroupeError} DATA when the tokenizer has no chat template, or it fails, hangs or exhausts its heap */
  async applyChatTemplate(
    conversations: readonly (readonly ChatMessage[])[],
    options: { readonly addGenerationPrompt?: boolean } = {},
  ): Promise<string[]> {
    if (!this.info.hasChatTemplate) {
      throw dataError(
        `the tokenizer of ${this.info.directory} has no chat_template, so it cannot render messages; give text columns, or a tokenizer with a template`,
      );
    }
    return this.#templates.render(conversations, options.addGenerationPrompt ?? false);
  }

  async stopTable(stopStrings: readonly string[]): Promise<StopTable> {
    return this.#run<StopTable>("stopTable", { directory: this.info.directory, stopStrings });
  }

  /** Ends the threads. Idempotent. */
  async close(): Promise<void> {
    this.#templates.close();
    await this.pool.destroy();
  }

  #inBatches<Item, Result>(
    items: readonly Item[],
    run: (batch: readonly Item[]) => Promise<Result>,
  ): Promise<Result[]> {
    const count = Math.ceil(items.length / BATCH);
    return Promise.all(
      Array.from({ length: count }, (_, i) => {
        const lane = this.#nextLane++ % this.#lanes.length;
        const job = this.#lanes[lane].then(() => run(items.slice(i * BATCH, (i + 1) * BATCH)));
        this.#lanes[lane] = job.catch(() => undefined);
        return job;
      }),
    );
  }

  async #run<Result>(name: string, task: EncodeTask | DecodeTask | StopTableTask): Promise<Result> {
    if (this.#closedBecause !== null) throw this.#closedBecause;
    try {
      return await runWithDeadline<Result>(this.pool, name, task, this.timeoutMs);
    } catch (error) {
      if (error instanceof TroupeError) {
        this.#closedBecause ??= error;
        await this.close();
        throw this.#closedBecause;
      }
      throw dataError(`tokenizer of ${this.info.directory}: ${name} failed: ${describeError(error)}`, {
        cause: error,
      });
    }
  }
}

/** Runs one task; past the deadline its thread is ended. @throws {TroupeError} DATA past the deadline */
async function runWithDeadline<Result>(
  pool: Piscina,
  name: string,
  task: OpenTask,
  timeoutMs: number,
): Promise<Result> {
  const deadline = new AbortController();
  const timer = setTimeout(() => deadline.abort(), timeoutMs);
  try {
    return (await pool.run(task, { name, signal: deadline.signal })) as Result;
  } catch (error) {
    if (!deadline.signal.aborted) throw error;
    throw dataError(
      `tokenizer of ${task.directory}: ${name} did not finish within ${timeoutMs} ms and was ended; its tokenizer.json ` +
        "most likely holds a regular expression that runs away on this text",
      { cause: error },
    );
  } finally {
    clearTimeout(timer);
  }
}
