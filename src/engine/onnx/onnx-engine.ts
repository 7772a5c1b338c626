import { configError, describeError } from "../../shared/errors.js";
import type { Arena, Engine, EngineOptions, Executable, ExecutableUse, Program } from "../engine.js";
import { FrozenArena, type FrozenForm } from "../frozen-weights.js";
import { HostArena, hostMemory } from "../host-arena.js";
import type { Layout } from "../layout.js";
import { OnnxExecutable } from "./onnx-executable.js";
import { probe } from "./probe.js";
import { RunOrder } from "./run-order.js";
import type { Runner, RunnerOptions } from "./runner.js";

/** Traces each program once and runs it on ONNX Runtime. */
export class OnnxEngine implements Engine {
  readonly name = "onnx";
  readonly description: string;
  readonly #executables = new Map<string, Promise<OnnxExecutable>>();
  readonly #order: RunOrder;

  constructor(
    private readonly runner: Runner,
    note = "",
    /** One thread to a run, so many at once; their arenas may be worked on by several threads. */
    private readonly beside: { readonly runner: Runner; readonly lanes: number } = { runner, lanes: 1 },
  ) {
    this.description = `onnx: ${runner.description}${note}`;
    this.#order = new RunOrder(beside.lanes);
  }

  get lanes(): number {
    return this.#order.lanes;
  }

  createArena(layout: Layout, values?: Float32Array): Arena {
    return new HostArena(layout, values, hostMemory(layout.size, this.lanes > 1));
  }

  arenaOver(layout: Layout, memory: Float32Array): Arena {
    return HostArena.over(layout, memory);
  }

  createFrozenArena(layout: Layout, form: FrozenForm): Arena {
    if (!this.runner.freezes) {
      throw configError(
        `engine.frozenWeights: int8 needs ONNX Runtime's C API, which cannot be used here; set it to f32`,
      );
    }
    return new FrozenArena(layout, form);
  }

  compile(program: Program, { sideBySide = false }: ExecutableUse = {}): Promise<Executable> {
    const isAlone = !sideBySide || this.lanes === 1; // the same thing on one lane
    const key = isAlone ? program.key : `${program.key} side by side`;
    let executable = this.#executables.get(key);
    if (executable === undefined) {
      executable = this.#compile(program, isAlone);
      this.#executables.set(key, executable);
      executable.catch(() => this.#executables.delete(key)); // a failed compile may be tried again
    }
    return executable;
  }

  async dispose(): Promise<void> {
    await this.#order.idle();
    const executables = await Promise.allSettled(this.#executables.values());
    this.#executables.clear();
    for (const result of executables) if (result.status === "fulfilled") await result.value.dispose();
    for (const runner of new Set([this.runner, this.beside.runner])) await runner.dispose();
  }

  async #compile(program: Program, isAlone: boolean): Promise<OnnxExecutable> {
    const runner = isAlone ? this.runner : this.beside.runner;
    const executable = new OnnxExecutable(program, runner, (claim, run) =>
      this.#order.run({ ...claim, isAlone }, run),
    );
    await executable.load();
    return executable;
  }
}

/**
 * The onnx engine. On the CPU: through the C API where that works, else through the public package.
 *
 * @throws {TroupeError} CONFIG when a GPU provider is asked for that does not work here
 */
export async function createOnnxEngine(options: EngineOptions = {}): Promise<Engine> {
  const { provider = "cpu", threads = 1 } = options;
  if (provider !== "cpu") return (await import("./device-engine.js")).createDeviceEngine(provider);
  const { runner, note } = await createRunner({ threads });
  if (threads === 1) return new OnnxEngine(runner, note);
  const { runner: single } = await createRunner({ threads: 1, leavesCaller: true });
  return new OnnxEngine(runner, note, { runner: single, lanes: threads });
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
