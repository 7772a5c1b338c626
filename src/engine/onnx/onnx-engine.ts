import { describeError, shapeError } from "../../shared/errors.js";
import { checkArenas, checkInputs } from "../binding.js";
import type { Arena, Engine, EngineOptions, Executable, HostArray, HostArrays, Program } from "../engine.js";
import { HostArena } from "../host-arena.js";
import { sizeOf, viewOf, type Layout } from "../layout.js";
import type { ValueInfo } from "../trace/graph.js";
import { modelProto } from "../trace/model-proto.js";
import { traceProgram, type TracedProgram } from "../trace/trace-program.js";
import { probe } from "./probe.js";
import type { BoundRun, Runner, RunnerOptions, Session } from "./runner.js";

/** Bound memory sets kept per executable: one per combination of arenas it is run with. */
const MAX_BINDINGS = 8;

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
  ) {
    this.description = `onnx: ${runner.description}${note}`;
  }

  createArena(layout: Layout, values?: Float32Array): Arena {
    return new HostArena(layout, values);
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
    const traced = traceProgram(program, "cpu");
    const session = await this.runner.load(modelProto(traced.graph), traced.graph);
    return new OnnxExecutable(program, traced, session, this.runner.writesInPlace, (run) => this.#queue(run));
  }

  #queue<T>(run: () => Promise<T>): Promise<T> {
    const next = this.#last.then(run);
    this.#last = next.catch(() => {}); // its caller sees the error; the next run does not
    return next;
  }
}

class OnnxExecutable implements Executable {
  readonly #bindings = new Map<string, Binding>();

  constructor(
    private readonly program: Program,
    private readonly traced: TracedProgram,
    private readonly session: Session,
    private readonly writesInPlace: boolean,
    private readonly queue: <T>(run: () => Promise<T>) => Promise<T>,
  ) {}

  async run(arenas: Readonly<Record<string, Arena>>, inputs: HostArrays): Promise<HostArrays> {
    checkArenas(this.program, arenas);
    checkInputs(this.program, inputs);
    return this.queue(() => this.#binding(arenas).run(inputs));
  }

  async dispose(): Promise<void> {
    for (const binding of this.#bindings.values()) binding.dispose();
    this.#bindings.clear();
    await this.session.dispose();
  }

  #binding(arenas: Readonly<Record<string, Arena>>): Binding {
    const hosts = Object.fromEntries(
      Object.keys(this.program.arenas).map((alias) => [alias, hostArena(arenas[alias])]),
    );
    const key = Object.values(hosts).map(arenaId).join();
    let binding = this.#bindings.get(key);
    if (binding === undefined) {
      binding = new Binding(this.traced, this.session, hosts, this.writesInPlace);
      const oldest = this.#bindings.keys().next();
      if (this.#bindings.size >= MAX_BINDINGS && !oldest.done) {
        this.#bindings.get(oldest.value)!.dispose();
        this.#bindings.delete(oldest.value);
      }
    } else {
      this.#bindings.delete(key); // re-inserted below: the map is ordered by last use
    }
    this.#bindings.set(key, binding);
    return binding;
  }
}

/** One program on one set of arenas: every value's memory, fixed. */
class Binding {
  readonly #staged = new Map<string, HostArray>();
  readonly #results: { readonly name: string; readonly values: HostArray }[] = [];
  readonly #copies: { readonly from: HostArray; readonly to: Float32Array }[] = [];
  readonly #bound: BoundRun;

  constructor(
    traced: TracedProgram,
    session: Session,
    arenas: Readonly<Record<string, HostArena>>,
    writesInPlace: boolean,
  ) {
    const tensorMemory = (alias: string, tensorName: string) =>
      viewOf(arenas[alias].layout, arenas[alias].values, tensorName);
    const inputs = traced.inputs.map((input) => {
      if (input.kind === "arena") return tensorMemory(input.alias, input.tensorName);
      const values = allocate(input.info);
      this.#staged.set(input.name, values);
      return values;
    });
    const outputs = traced.outputs.map((output) => {
      if (output.kind === "call") {
        const values = allocate(output.info);
        this.#results.push({ name: output.name, values });
        return values;
      }
      const memory = tensorMemory(output.alias, output.tensorName);
      // The trace knows who reads an alias; it cannot know of a second alias for the same memory.
      const isShared = Object.values(arenas).filter((arena) => arena === arenas[output.alias]).length > 1;
      if (output.isInPlace && writesInPlace && !isShared) return memory;
      const scratch = allocate(output.info);
      this.#copies.push({ from: scratch, to: memory });
      return scratch;
    });
    this.#bound = session.bind(inputs, outputs);
  }

  async run(inputs: HostArrays): Promise<HostArrays> {
    for (const [name, values] of this.#staged) values.set(inputs[name]);
    await this.#bound.run();
    for (const { from, to } of this.#copies) to.set(from);
    return Object.fromEntries(this.#results.map(({ name, values }) => [name, values.slice()]));
  }

  dispose(): void {
    this.#bound.dispose();
  }
}

const arenaIds = new WeakMap<HostArena, number>();
let nextArenaId = 0;

function arenaId(arena: HostArena): number {
  let id = arenaIds.get(arena);
  if (id === undefined) arenaIds.set(arena, (id = nextArenaId++));
  return id;
}

function hostArena(arena: Arena): HostArena {
  if (!(arena instanceof HostArena))
    throw shapeError("an arena of another engine was passed to the onnx engine");
  return arena;
}

/** Memory with a fixed address (see HostArena). */
function allocate({ dims, dtype }: ValueInfo): HostArray {
  const memory = new ArrayBuffer(4 * sizeOf(dims));
  return dtype === "int32" ? new Int32Array(memory) : new Float32Array(memory);
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
  return new OnnxEngine(runner, note);
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
