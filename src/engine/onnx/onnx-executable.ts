import { shapeError } from "../../shared/errors.js";
import { checkArenas, checkInputs } from "../binding.js";
import type { Arena, Executable, HostArray, HostArrays, Program } from "../engine.js";
import { FrozenArena, type FrozenPart } from "../frozen-weights.js";
import { HostArena } from "../host-arena.js";
import { sizeOf, viewOf } from "../layout.js";
import type { ValueInfo } from "../trace/graph.js";
import { modelProto } from "../trace/model-proto.js";
import { traceProgram, type TracedProgram } from "../trace/trace-program.js";
import type { Claim } from "./run-order.js";
import type { BoundRun, HostMemory, Runner, Session } from "./runner.js";

/** Bound memory sets kept per executable: one per combination of arenas it is run with, and run at once. */
const MAX_BINDINGS = 8;

type ReadableArena = HostArena | FrozenArena;
type HostArenas = Readonly<Record<string, ReadableArena>>;

const memoryOf = (arena: ReadableArena, tensorName: string, part?: FrozenPart): HostMemory =>
  arena instanceof FrozenArena
    ? arena.memoryOf(tensorName, part)
    : viewOf(arena.layout, arena.values, tensorName);

/** A program traced for the CPU, its session, and the memory it has been run on. */
export class OnnxExecutable implements Executable {
  /** Those not in use, by last use. */
  readonly #bindings: Binding[] = [];
  readonly #traced: TracedProgram;
  /** Until it is loaded for good. */
  #model: Uint8Array | null;
  #session: Session | null = null;
  /** Which values of which arenas the session was loaded with. */
  #frozenKey = "";

  constructor(
    private readonly program: Program,
    private readonly runner: Runner,
    private readonly inOrder: <T>(
      claim: Pick<Claim, "reads" | "writes">,
      run: () => Promise<T>,
    ) => Promise<T>,
  ) {
    this.#traced = traceProgram(program, "cpu", runner.freezes);
    this.#model = modelProto(this.#traced.graph);
  }

  /** Loads the session, unless that takes frozen values, which the first run brings. */
  async load(): Promise<void> {
    const { frozen, graph } = this.#traced;
    if (frozen.length > 0) return;
    this.#session = await this.runner.load(this.#model!, graph);
    // The session has them now, and a run may have many sessions.
    this.#model = null;
    graph.nodes = [];
    graph.initializers = [];
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
    return this.inOrder(this.#claim(hosts), async () => {
      const session = await this.#freshSession(hosts);
      const binding = this.#takeBinding(session, hosts);
      try {
        return await binding.run(inputs, borrows);
      } finally {
        this.#keepBinding(binding);
        for (const alias of this.#updated) hosts[alias].revision++;
      }
    });
  }

  /** With frozen values also the session, which a run may have to load again. */
  #claim(hosts: HostArenas): Pick<Claim, "reads" | "writes"> {
    const writes = this.#updated.map((alias) => hosts[alias]);
    return {
      reads: Object.values(hosts),
      writes: this.#traced.frozen.length === 0 ? writes : [...writes, this],
    };
  }

  get #updated(): string[] {
    const { arenas } = this.program;
    return Object.keys(arenas).filter((alias) => arenas[alias].access === "update");
  }

  async dispose(): Promise<void> {
    this.#unbind();
    await this.#session?.dispose();
    this.#session = null;
  }

  /** The session, loaded again when frozen values are not those it was loaded with. */
  async #freshSession(arenas: HostArenas): Promise<Session> {
    const { frozen, graph } = this.#traced;
    if (frozen.length === 0) return this.#session!;
    const aliases = new Set(frozen.map(({ alias }) => alias));
    const key = [...aliases].map((alias) => `${arenaId(arenas[alias])}@${arenas[alias].revision}`).join();
    if (this.#session === null || key !== this.#frozenKey) {
      await this.dispose(); // first: two copies of the weights need not fit
      const values = frozen.map(({ alias, tensorName, part }) => memoryOf(arenas[alias], tensorName, part));
      this.#session = await this.runner.load(this.#model!, graph, values);
      this.#frozenKey = key;
    }
    return this.#session;
  }

  #unbind(): void {
    for (const binding of this.#bindings.splice(0)) binding.dispose();
  }

  #takeBinding(session: Session, hosts: HostArenas): Binding {
    this.#dropDisposed();
    const key = Object.values(hosts).map(arenaId).join();
    const index = this.#bindings.findIndex((binding) => binding.key === key);
    if (index >= 0) return this.#bindings.splice(index, 1)[0];
    return new Binding(key, this.#traced, session, hosts, this.runner.writesInPlace);
  }

  #dropDisposed(): void {
    for (let i = this.#bindings.length - 1; i >= 0; i--)
      if (this.#bindings[i].isStale) this.#bindings.splice(i, 1)[0].dispose();
  }

  #keepBinding(binding: Binding): void {
    this.#bindings.push(binding);
    if (this.#bindings.length > MAX_BINDINGS) this.#bindings.shift()!.dispose();
  }
}

/** One program on one set of arenas: every value's memory, fixed. */
class Binding {
  readonly #staged = new Map<string, HostArray>();
  readonly #results: { readonly name: string; readonly values: HostArray }[] = [];
  readonly #copies: { readonly from: HostArray; readonly to: Float32Array }[] = [];
  readonly #bound: BoundRun;

  constructor(
    /** Names the arenas. */
    readonly key: string,
    traced: TracedProgram,
    session: Session,
    private readonly arenas: HostArenas,
    writesInPlace: boolean,
  ) {
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

  /** One of its arenas is gone. */
  get isStale(): boolean {
    return Object.values(this.arenas).some((arena) => arena instanceof HostArena && arena.isDisposed);
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
