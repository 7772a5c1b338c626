import { shapeError } from "../../shared/errors.js";
import { checkArenas, checkInputs } from "../binding.js";
import type { Arena, Executable, HostArray, HostArrays, Program } from "../engine.js";
import { FrozenArena, type FrozenPart } from "../frozen-weights.js";
import { HostArena } from "../host-arena.js";
import { sizeOf, viewOf } from "../layout.js";
import type { ValueInfo } from "../trace/graph.js";
import { modelProto } from "../trace/model-proto.js";
import { traceProgram, type TracedProgram } from "../trace/trace-program.js";
import type { BoundRun, HostMemory, Runner, Session } from "./runner.js";

/** Bound memory sets kept per executable: one per combination of arenas it is run with. */
const MAX_BINDINGS = 8;

type ReadableArena = HostArena | FrozenArena;
type HostArenas = Readonly<Record<string, ReadableArena>>;

const memoryOf = (arena: ReadableArena, tensorName: string, part?: FrozenPart): HostMemory =>
  arena instanceof FrozenArena
    ? arena.memoryOf(tensorName, part)
    : viewOf(arena.layout, arena.values, tensorName);

/** A program traced for the CPU, its session, and the memory it has been run on. */
export class OnnxExecutable implements Executable {
  readonly #bindings = new Map<string, Binding>();
  readonly #traced: TracedProgram;
  readonly #model: Uint8Array;
  #session: Session | null = null;
  /** Which values of which arenas the session was loaded with. */
  #frozenKey = "";

  constructor(
    private readonly program: Program,
    private readonly runner: Runner,
    private readonly queue: <T>(run: () => Promise<T>) => Promise<T>,
  ) {
    this.#traced = traceProgram(program, "cpu", runner.freezes);
    this.#model = modelProto(this.#traced.graph);
  }

  /** Loads the session, unless that takes frozen values, which the first run brings. */
  async load(): Promise<void> {
    if (this.#traced.frozen.length === 0)
      this.#session = await this.runner.load(this.#model, this.#traced.graph);
  }

  async run(
    arenas: Readonly<Record<string, Arena>>,
    inputs: HostArrays,
    { borrows = false }: { readonly borrows?: boolean } = {},
  ): Promise<HostArrays> {
    checkArenas(this.program, arenas);
    checkInputs(this.program, inputs);
    const hosts = Object.fromEntries(
      Object.keys(this.program.arenas).map((alias) => [alias, hostArena(arenas[alias])]),
    );
    return this.queue(async () => {
      const session = await this.#freshSession(hosts);
      const results = await this.#binding(session, hosts).run(inputs, borrows);
      for (const [alias, { access }] of Object.entries(this.program.arenas)) {
        if (access === "update") hosts[alias].revision++;
      }
      return results;
    });
  }

  async dispose(): Promise<void> {
    this.#unbind();
    await this.#session?.dispose();
    this.#session = null;
  }

  /** The session, loaded again when frozen values are not those it was loaded with. */
  async #freshSession(arenas: HostArenas): Promise<Session> {
    const { frozen, graph } = this.#traced;
    const aliases = new Set(frozen.map(({ alias }) => alias));
    const key = [...aliases].map((alias) => `${arenaId(arenas[alias])}@${arenas[alias].revision}`).join();
    if (this.#session === null || key !== this.#frozenKey) {
      await this.dispose(); // first: two copies of the weights need not fit
      const values = frozen.map(({ alias, tensorName, part }) => memoryOf(arenas[alias], tensorName, part));
      this.#session = await this.runner.load(this.#model, graph, values);
      this.#frozenKey = key;
    }
    return this.#session;
  }

  #unbind(): void {
    for (const binding of this.#bindings.values()) binding.dispose();
    this.#bindings.clear();
  }

  #binding(session: Session, hosts: HostArenas): Binding {
    const key = Object.values(hosts).map(arenaId).join();
    let binding = this.#bindings.get(key);
    if (binding === undefined) {
      binding = new Binding(this.#traced, session, hosts, this.runner.writesInPlace);
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

  constructor(traced: TracedProgram, session: Session, arenas: HostArenas, writesInPlace: boolean) {
    const inputs = traced.inputs.map((input) => {
      if (input.kind === "arena") return memoryOf(arenas[input.alias], input.tensorName, input.part);
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
      const memory = memoryOf(arenas[output.alias], output.tensorName) as Float32Array;
      // The trace knows who reads an alias; it cannot know of a second alias for the same memory.
      const isShared = Object.values(arenas).filter((arena) => arena === arenas[output.alias]).length > 1;
      if (output.isInPlace && writesInPlace && !isShared) return memory;
      const scratch = allocate(output.info);
      this.#copies.push({ from: scratch, to: memory });
      return scratch;
    });
    this.#bound = session.bind(inputs, outputs);
  }

  async run(inputs: HostArrays, borrows: boolean): Promise<HostArrays> {
    for (const [name, values] of this.#staged) values.set(inputs[name]);
    await this.#bound.run();
    for (const { from, to } of this.#copies) to.set(from);
    return Object.fromEntries(
      this.#results.map(({ name, values }) => [name, borrows ? values : values.slice()]),
    );
  }

  dispose(): void {
    this.#bound.dispose();
  }
}

const arenaIds = new WeakMap<ReadableArena, number>();
let nextArenaId = 0;

function arenaId(arena: ReadableArena): number {
  let id = arenaIds.get(arena);
  if (id === undefined) arenaIds.set(arena, (id = nextArenaId++));
  return id;
}

function hostArena(arena: Arena): ReadableArena {
  if (!(arena instanceof HostArena || arena instanceof FrozenArena))
    throw shapeError("an arena of another engine was passed to the onnx engine");
  return arena;
}

/** Memory with a fixed address (see HostArena). */
function allocate({ dims, dtype }: ValueInfo): HostArray {
  const memory = new ArrayBuffer(4 * sizeOf(dims));
  return dtype === "int32" ? new Int32Array(memory) : new Float32Array(memory);
}
