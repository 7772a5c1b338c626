/**
 * ONNX Runtime's C API, called through koffi in the library that onnxruntime-node bundles.
 *
 * The API is a table of function pointers that only ever grows at its end, so a position below holds for every
 * later version; `OrtApiBase` hands out the table for a version number it supports.
 *
 * @see https://github.com/microsoft/onnxruntime/blob/main/include/onnxruntime/core/session/onnxruntime_c_api.h
 */
import koffi from "koffi";
import { TroupeError } from "../../shared/errors.js";
import { bundledLibraryPath } from "./package.js";

/** Version of the table we ask for: ONNX Runtime 1.17, the first with everything used here. */
const API_VERSION = 17;

/** Positions in OrtApi. */
const POSITION = {
  getErrorMessage: 2,
  createEnv: 3,
  createSessionFromArray: 8,
  run: 9,
  createSessionOptions: 10,
  disableMemPattern: 17,
  setIntraOpNumThreads: 24,
  setInterOpNumThreads: 25,
  createTensorWithData: 49,
  createCpuMemoryInfo: 69,
  releaseStatus: 93,
  releaseSession: 95,
  releaseValue: 96,
  releaseSessionOptions: 100,
  addSessionConfigEntry: 130,
  createAndRegisterAllocator: 144,
  addInitializer: 150,
  createArenaCfg: 156,
  releaseArenaCfg: 157,
  createPrepackedWeightsContainer: 166,
  releasePrepackedWeightsContainer: 167,
  createSessionFromArrayWithPrepackedWeights: 169,
  addExternalInitializers: 210,
} as const;

const TABLE_LENGTH = 211;

/** An address in native memory. */
export type Pointer = unknown;

/** What koffi takes for a parameter: a C type, or one marked as an output. */
type ParameterType = string | ReturnType<typeof koffi.out>;

type Callable = (...args: unknown[]) => Pointer;

export class OrtCApi {
  /** Version of the library, e.g. "1.30.0". */
  readonly version: string;
  /** koffi unloads a library when its handle is garbage collected, whatever functions are still known. */
  readonly #library: ReturnType<typeof koffi.load>;
  readonly #getErrorMessage: Callable;
  readonly #releaseStatus: Callable;
  readonly #createTensor: Callable;
  readonly #releaseValue: Callable;
  readonly #createSessionOptions: Callable;
  readonly #disableMemPattern: Callable;
  readonly #setIntraOpNumThreads: Callable;
  readonly #setInterOpNumThreads: Callable;
  readonly #addSessionConfigEntry: Callable;
  readonly #addInitializer: Callable;
  readonly #createPackedContainer: Callable;
  readonly #releasePackedContainer: Callable;
  readonly #createPackedSession: Callable;
  readonly #addExternalInitializers: Callable;
  readonly #releaseSessionOptions: Callable;
  readonly #createSession: Callable;
  readonly #releaseSession: Callable;
  readonly #run: RunFunction;
  readonly #environment: Pointer;
  readonly #cpuMemory: Pointer;

  /** @throws when the library does not load or does not offer the API version */
  constructor(path = bundledLibraryPath()) {
    this.#library = koffi.load(path);
    const base = this.#library.func("OrtGetApiBase", "void *", [])() as Pointer;
    const [getApi, getVersion] = koffi.decode(base, koffi.array("void *", 2)) as Pointer[];
    this.version = functionAt(getVersion, "str", [])() as string;
    const api = functionAt(getApi, "void *", ["uint32_t"])(API_VERSION);
    if (api === null) {
      throw new TroupeError(
        "INTERNAL",
        `ONNX Runtime ${this.version} does not offer C API version ${API_VERSION}`,
      );
    }
    const table = koffi.decode(api, koffi.array("void *", TABLE_LENGTH)) as Pointer[];
    const at = (name: keyof typeof POSITION, parameters: ParameterType[], result = "void *") =>
      functionAt(table[POSITION[name]], result, parameters);
    const out = koffi.out("void **");

    this.#getErrorMessage = at("getErrorMessage", ["void *"], "str");
    this.#releaseStatus = at("releaseStatus", ["void *"], "void");
    this.#createTensor = at("createTensorWithData", [
      "void *",
      "void *",
      "size_t",
      "void *",
      "size_t",
      "int",
      out,
    ]);
    this.#releaseValue = at("releaseValue", ["void *"], "void");
    this.#createSessionOptions = at("createSessionOptions", [out]);
    this.#disableMemPattern = at("disableMemPattern", ["void *"]);
    this.#setIntraOpNumThreads = at("setIntraOpNumThreads", ["void *", "int"]);
    this.#setInterOpNumThreads = at("setInterOpNumThreads", ["void *", "int"]);
    this.#addSessionConfigEntry = at("addSessionConfigEntry", ["void *", "str", "str"]);
    this.#addInitializer = at("addInitializer", ["void *", "str", "void *"]);
    this.#createPackedContainer = at("createPrepackedWeightsContainer", [out]);
    this.#releasePackedContainer = at("releasePrepackedWeightsContainer", ["void *"], "void");
    this.#createPackedSession = at("createSessionFromArrayWithPrepackedWeights", [
      ...["void *", "void *", "size_t", "void *", "void *"],
      out,
    ]);
    this.#addExternalInitializers = at("addExternalInitializers", [
      "void *",
      "const char **",
      "void **",
      "size_t",
    ]);
    this.#releaseSessionOptions = at("releaseSessionOptions", ["void *"], "void");
    this.#createSession = at("createSessionFromArray", ["void *", "void *", "size_t", "void *", out]);
    this.#releaseSession = at("releaseSession", ["void *"], "void");
    // session, options, input names, inputs, count, output names, count, outputs
    const [names, values] = ["const char **", "void **"];
    const runParameters = ["void *", "void *", names, values, "size_t", names, "size_t", values];
    this.#run = at("run", runParameters) as RunFunction;

    this.#environment = this.#out(at("createEnv", ["int", "str", out]), LOG_ERRORS, "troupe");
    const memoryInfo = at("createCpuMemoryInfo", ["int", "int", out]);
    this.#cpuMemory = this.#out(memoryInfo, 0, 0);
    this.#shareMemory(
      this.#out(memoryInfo, ARENA_ALLOCATOR, 0),
      at("createArenaCfg", ["size_t", "int", "int", "int", out]),
      at("createAndRegisterAllocator", ["void *", "void *", "void *"]),
      at("releaseArenaCfg", ["void *"], "void"),
    );
  }

  /**
   * One pool of memory for all sessions of the process that say so. The environment is the process's: another thread may
   * have registered the pool already, which the library answers with an error that changes nothing.
   */
  #shareMemory(memory: Pointer, createConfig: Callable, register: Callable, releaseConfig: Callable): void {
    const config = this.#out(createConfig, 0, -1, -1, -1);
    try {
      const status = register(this.#environment, memory, config);
      if (status !== null) this.#releaseStatus(status);
    } finally {
      releaseConfig(config);
    }
  }

  /** A tensor over memory that the caller keeps alive and in place. */
  createTensor(memory: ArrayBufferView, dims: readonly number[], typeCode: number): Pointer {
    const shape = BigInt64Array.from(dims.map(BigInt));
    const { byteLength } = memory;
    return this.#out(this.#createTensor, this.#cpuMemory, memory, byteLength, shape, dims.length, typeCode);
  }

  releaseTensor(value: Pointer): void {
    this.#releaseValue(value);
  }

  /** For the `packed` of sessions, all of which must be released before it. */
  createPackedContainer(): Pointer {
    return this.#out(this.#createPackedContainer);
  }

  releasePackedContainer(container: Pointer): void {
    this.#releasePackedContainer(container);
  }

  /**
   * @param options.constants values of the model's external tensors, alive until the session is released
   * @param options.packed    keeps what sessions make of shared constants, once for all of them
   * @param options.ownsMemory what its runs need stays with the session, instead of being left to the next run of any
   */
  createSession(
    model: Uint8Array,
    {
      threads,
      constants = [],
      packed = null,
      ownsMemory = false,
    }: {
      threads: number;
      constants?: readonly SessionConstant[];
      packed?: Pointer | null;
      ownsMemory?: boolean;
    },
  ): Pointer {
    const options = this.#out(this.#createSessionOptions);
    try {
      // A pattern found in the first run would take one block for all later ones, beside the memory of the first.
      this.#check(this.#disableMemPattern(options));
      this.#check(this.#setIntraOpNumThreads(options, threads));
      this.#check(this.#setInterOpNumThreads(options, 1));
      // Pool threads stop spinning when a run ends: several processes share the cores.
      this.#check(this.#addSessionConfigEntry(options, "session.force_spinning_stop", "1"));
      if (!ownsMemory) {
        this.#check(this.#addSessionConfigEntry(options, "session.use_env_allocators", "1"));
      }
      if (constants.length > 0) {
        const names = constants.map(({ name }) => name);
        const values = constants.map(({ value }) => value);
        this.#check(this.#addExternalInitializers(options, names, values, constants.length));
      }
      const shared = constants.filter(({ isShared }) => isShared);
      for (const { name, value } of shared) this.#check(this.#addInitializer(options, name, value));
      const source = [this.#environment, model, model.byteLength, options];
      return shared.length > 0 && packed !== null
        ? this.#out(this.#createPackedSession, ...source, packed)
        : this.#out(this.#createSession, ...source);
    } finally {
      this.#releaseSessionOptions(options);
    }
  }

  releaseSession(session: Pointer): void {
    this.#releaseSession(session);
  }

  /** Runs on the calling thread. */
  runSync(call: RunCall): void {
    this.#check(this.#run(...runArguments(call)));
  }

  /** Runs on one of libuv's threads; the event loop stays free. */
  run(call: RunCall): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#run.async(...runArguments(call), (error: Error | null, status: Pointer) => {
        try {
          if (error !== null) throw error;
          this.#check(status);
          resolve();
        } catch (cause) {
          reject(cause instanceof Error ? cause : new Error(String(cause)));
        }
      });
    });
  }

  /** Calls a function whose last parameter receives a pointer. */
  #out(callable: Callable, ...args: unknown[]): Pointer {
    const out: Pointer[] = [null];
    this.#check(callable(...args, out));
    return out[0];
  }

  /** A status is null, or an error that we own. */
  #check(status: Pointer): void {
    if (status === null) return;
    const message = this.#getErrorMessage(status) as string;
    this.#releaseStatus(status);
    throw new TroupeError("INTERNAL", `ONNX Runtime: ${message}`);
  }
}

/** A callable for the function at an address. */
function functionAt(address: Pointer, result: string, parameters: ParameterType[]): Callable {
  return koffi.decode(address, koffi.proto(result, parameters)) as Callable;
}

/** OrtLoggingLevel ORT_LOGGING_LEVEL_ERROR */
const LOG_ERRORS = 3;
/** OrtAllocatorType OrtArenaAllocator */
const ARENA_ALLOCATOR = 1;

/** A model's tensor whose values are in the caller's memory. */
export interface SessionConstant {
  readonly name: string;
  readonly value: Pointer;
  /** See `createSession`'s `packed`. */
  readonly isShared: boolean;
  /** Kept from being collected. */
  readonly memory: ArrayBufferView;
}

export interface RunCall {
  readonly session: Pointer;
  readonly inputNames: readonly string[];
  readonly inputs: readonly Pointer[];
  readonly outputNames: readonly string[];
  readonly outputs: readonly Pointer[];
}

interface RunFunction {
  (...args: unknown[]): Pointer;
  async(...args: unknown[]): void;
}

const runArguments = (call: RunCall): unknown[] => [
  call.session,
  null,
  call.inputNames,
  call.inputs,
  call.inputs.length,
  call.outputNames,
  call.outputs.length,
  call.outputs,
];
