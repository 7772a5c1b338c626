import { configError, describeError } from "../../shared/errors.js";
import type { Arena, Engine, EngineOptions, Executable, Program } from "../engine.js";
import { FrozenArena, type FrozenForm } from "../frozen-weights.js";
import { HostArena } from "../host-arena.js";
import type { Layout } from "../layout.js";
import { OnnxExecutable } from "./onnx-executable.js";
import { probe } from "./probe.js";
import type { Runner, RunnerOptions } from "./runner.js";

/** Traces each program once and runs it on ONNX Runtime. Runs of one engine never overlap. */
export class OnnxEngine implements Engine {
  readonly name = "onnx";
  readonly description: string;
  readonly #executables = new Map<string, Promise<OnnxExecutable>>();
  /** Runs share arenas, so each waits for the one before. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly runner: Runner,
    note = "",
    /** Arenas may be worked on by several threads at once. */
    private readonly sharesArenas = false,
  ) {
    this.description = `onnx: ${runner.description}${note}`;
  }

  createArena(layout: Layout, values?: Float32Array): Arena {
    return new HostArena(layout, values, this.sharesArenas);
  }

  createFrozenArena(layout: Layout, form: FrozenForm): Arena {
    if (!this.runner.freezes) {
      throw configError(
        `engine.frozenWeights: int8 needs ONNX Runtime's C API, which cannot be used here; set it to f32`,
      );
    }
    return new FrozenArena(layout, form);
  }

  compile(program: Program): Promise<Executable> {
    let executable = this.#executables.get(program.key);
    if (executable === undefined) {
      executable = this.#compile(program);
      this.#executables.set(program.key, executable);
      executable.catch(() => this.#executables.delete(program.key)); // a failed compile may be tried again
    }
    return executable;
  }

  async dispose(): Promise<void> {
    await this.#last;
    const executables = await Promise.allSettled(this.#executables.values());
    this.#executables.clear();
    for (const result of executables) if (result.status === "fulfilled") await result.value.dispose();
    await this.runner.dispose();
  }

  async #compile(program: Program): Promise<OnnxExecutable> {
    const executable = new OnnxExecutable(program, this.runner, (run) => this.#queue(run));
    await executable.load();
    return executable;
  }

  #queue<T>(run: () => Promise<T>): Promise<T> {
    const next = this.#last.then(run);
    this.#last = next.catch(() => {}); // its caller sees the error; the next run does not
    return next;
  }
}

/**
 * The onnx engine. On the CPU: through the C API where that works, else through the public package.
 *
 * @throws {TroupeError} CONFIG when a GPU provider is asked for that does not work here
 */
export async function createOnnxEngine(options: EngineOptions = {}): Promise<Engine> {
  const { provider = "cpu", threads = 1 } = options;
  if (provider !== "cpu") return (await import("./device-engine.js")).createDeviceEngine(provider, options);
  const { runner, note } = await createRunner({ threads });
  return new OnnxEngine(runner, note, threads > 1);
}

async function createRunner(options: RunnerOptions): Promise<{ runner: Runner; note: string }> {
  try {
    const { CRunner } = await import("./c-runner.js");
    const runner = new CRunner(options);
    await probe(runner);
    return { runner, note: "" };
  } catch (error) {
    const { NodeRunner } = await import("./node-runner.js");
    return { runner: new NodeRunner(options), note: ` (C API not usable: ${describeError(error)})` };
  }
}
