/**
 * The one compute thread of a worker process. Models and executables live in the thread's module state; calls run one
 * after another there, so the process's own event loop is always free to answer heartbeats.
 */
import { MessagePort } from "node:worker_threads";
import { Piscina } from "piscina";
import { builtFile } from "../shared/paths.js";
import { fromThreadError } from "./thread-error.js";

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- the exported functions of any thread module
type ThreadModule = Record<string, (argument: any) => Promise<any>>;

const END_WITHIN_MS = 10_000;

export class ComputePool<M extends ThreadModule> {
  private readonly pool: Piscina;

  /** @param modulePath for example "src/learner/learner-thread"; `M` is the type of that module's exports */
  constructor(modulePath: string) {
    this.pool = new Piscina({
      filename: builtFile(modulePath),
      minThreads: 1,
      maxThreads: 1,
      idleTimeout: Infinity,
      // With atomics a waiting thread blocks its own event loop, which asynchronous runners need.
      atomics: "disabled",
      recordTiming: false,
    });
  }

  /** Runs an exported function of the thread module. What is `moved` moves without a copy and is gone here. */
  async run<K extends keyof M & string>(
    name: K,
    argument: Parameters<M[K]>[0],
    moved: readonly (ArrayBufferView | MessagePort)[] = [],
  ): Promise<Awaited<ReturnType<M[K]>>> {
    try {
      return (await this.pool.run(argument, {
        name,
        transferList: movableBuffers(moved) as never,
      })) as Awaited<ReturnType<M[K]>>;
    } catch (error) {
      throw fromThreadError(error);
    }
  }

  /**
   * Ends the thread; the last thing a process does with it. A thread that is stuck in native code can neither be ended nor
   * left behind, since `process.exit` waits for it as well: the process then kills itself.
   */
  async close(endWithinMs = END_WITHIN_MS): Promise<void> {
    const killing = setTimeout(() => {
      process.stderr.write("the compute thread does not end; killing this process\n");
      process.kill(process.pid, "SIGKILL");
    }, endWithinMs);
    await this.pool.destroy().finally(() => clearTimeout(killing));
  }
}

/** What of all that has to move to another thread: shared memory is there already. */
export function movableBuffers(
  views: readonly (ArrayBufferView | MessagePort)[],
): (ArrayBuffer | MessagePort)[] {
  const memories = views.map((view) => (view instanceof MessagePort ? view : view.buffer));
  return memories.filter((memory) => memory instanceof ArrayBuffer || memory instanceof MessagePort);
}
