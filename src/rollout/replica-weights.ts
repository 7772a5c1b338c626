/**
 * Where the weights of a rollout worker's models lie. Under frozen adapters actor and reference are one model with and
 * without a small matrix beside each large one, and so are critic and reward model: each pair holds its base once.
 *
 *   role      base           params
 *   actor     of the policy  adapters
 *   ref       –              the same memory as the actor's base: there is nothing else to a language model
 *   critic    of the reward  adapters, scalar head
 *   reward    model          scalar head
 */
import type { Config } from "../config/schema.js";
import type { Arena, Engine } from "../engine/engine.js";
import { FrozenArena } from "../engine/frozen-weights.js";
import { loadWeights } from "../models/checkpoint-dir.js";
import { frozenForm } from "../models/frozen.js";
import { readAdapterFile } from "../models/lora-files.js";
import { partOf, splitLayout, trainedLayout, withLora, type LoraSettings } from "../models/lora.js";
import { layoutOf, parseModelConfig, type Head, type ModelSpec } from "../models/model-spec.js";
import { configError, dataError } from "../shared/errors.js";
import type { Replica } from "./scorer.js";

export const ROLES = ["actor", "ref", "reward", "critic"] as const;
export type Role = (typeof ROLES)[number];

/** Roles whose model stays as it is for a whole run. */
const FROZEN_ROLES: readonly Role[] = ["ref", "reward"];

export interface RolloutModel {
  readonly role: Role;
  /** Text of its Hugging Face config.json. */
  readonly hfConfigJson: string;
  readonly head: Head;
  /** Its versions are adapters on a frozen base. @default whole models */
  readonly lora?: LoraSettings | null;
  /** Name of its frozen weights; models with equal names and heads hold them once. @default its own memory */
  readonly base?: string | null;
}

export class ReplicaWeights {
  private readonly replicas = new Map<Role, Replica>();
  private readonly bases = new Map<string, Arena>();
  /** What has been written so far: params by role, bases. */
  private readonly loaded = new Set<Role | Arena>();
  /** Where a version is read before it replaces another: kept, because what is left to the collector stays for long. */
  private staging: Float32Array | undefined;

  constructor(
    private readonly engine: Engine,
    models: readonly RolloutModel[],
    frozenWeights: Config["engine"]["frozenWeights"] = "f32",
  ) {
    for (const model of models) {
      if (!ROLES.includes(model.role))
        throw configError(`model role must be one of ${ROLES.join(", ")}, got ${model.role}`);
      const isInt8 = frozenWeights === "int8" && FROZEN_ROLES.includes(model.role);
      this.replicas.set(model.role, isInt8 ? this.openInt8(model) : this.open(model));
    }
  }

  /** Float32 memory of all models, bytes; int8 models are not counted. */
  get bytes(): number {
    const arenas = new Set(
      [...this.replicas.values()].filter(({ form }) => form === undefined).flatMap(arenasOf),
    );
    return 4 * [...arenas].reduce((sum, { layout }) => sum + layout.size, 0);
  }

  of(role: Role, needsWeights = false): Replica {
    const replica = this.replicas.get(role);
    if (replica === undefined) throw configError(`no ${role} model was configured`);
    if (needsWeights && !(this.loaded.has(role) && this.hasBase(role)))
      throw configError(`the ${role} model has no weights yet: load it first`);
    return replica;
  }

  /** Are the weights there that the role's adapters sit on? True of a model without adapters. */
  hasBase(role: Role): boolean {
    const { base } = this.of(role);
    return base === undefined || this.loaded.has(base);
  }

  /**
   * A version of a model, or of its adapters alone where it has them. The old one stays unless the whole file is good.
   * Brings a base along that others read too.
   */
  async load(role: Role, paths: readonly string[]): Promise<void> {
    const { spec, params, base } = this.of(role);
    if (spec.lora !== undefined) await params.write(await readAdapterFile(paths[0], spec));
    else if (base !== undefined) {
      await this.loadParts(paths, spec, [params, base]);
      this.loaded.add(base);
    } else {
      const isFirst = !this.loaded.has(params) && !(params instanceof FrozenArena);
      const into = isFirst ? await params.read() : this.stagingOf(spec);
      await params.write((await loadWeights(paths, spec, { into })).values);
      this.loaded.add(params);
    }
    this.loaded.add(role);
  }

  /** The model under a role's adapters. */
  async loadBase(role: Role, paths: readonly string[]): Promise<void> {
    const { spec, base } = this.of(role);
    if (base === undefined) throw configError(`the ${role} model has no base apart from its weights`);
    await this.loadParts(paths, spec, [base]);
    this.loaded.add(base);
  }

  /** Spreads a model over arenas that hold parts of it. */
  private async loadParts(
    paths: readonly string[],
    spec: ModelSpec,
    arenas: readonly Arena[],
  ): Promise<void> {
    const { values } = await loadWeights(paths, spec, { into: this.stagingOf(spec) });
    for (const arena of arenas) await arena.write(partOf(spec, values, arena.layout, await arena.read()));
    this.staging = undefined; // bases are read once
  }

  private stagingOf(spec: ModelSpec): Float32Array {
    const { size } = layoutOf(spec);
    if (this.staging === undefined || this.staging.length < size) this.staging = new Float32Array(size);
    return this.staging.subarray(0, size);
  }

  dispose(): void {
    for (const arena of new Set([...this.replicas.values()].flatMap(arenasOf))) arena.dispose();
  }

  private open(model: RolloutModel): Replica {
    const { engine } = this;
    const plain = specOf(model);
    const { lora = null, base: name = null } = model;
    if (name === null) {
      if (lora !== null) throw configError(`the ${model.role} model has adapters and names no base`);
      return { spec: plain, params: engine.createArena(layoutOf(plain)) };
    }
    const { base: baseIn, head } = splitLayout(plain);
    const key = `${name} ${model.head}`;
    const base = this.bases.get(key) ?? engine.createArena(baseIn);
    this.bases.set(key, base);
    if (lora !== null) {
      const spec = withLora(plain, lora);
      return { spec, base, params: engine.createArena(trainedLayout(spec)) };
    }
    return head === null
      ? { spec: plain, params: base }
      : { spec: plain, base, params: engine.createArena(head) };
  }

  private openInt8(model: RolloutModel): Replica {
    const { engine } = this;
    if (engine.createFrozenArena === undefined) {
      throw configError(
        `engine.frozenWeights: int8 is computed by the onnx engine on the CPU; this worker runs ${engine.description}. Set it to f32`,
      );
    }
    const spec = specOf(model);
    const form = frozenForm(spec);
    return { spec, params: engine.createFrozenArena(layoutOf(spec), form), form };
  }
}

const arenasOf = ({ params, base }: Replica): Arena[] => (base === undefined ? [params] : [params, base]);

function specOf({ role, hfConfigJson, head }: RolloutModel): ModelSpec {
  let config: unknown;
  try {
    config = JSON.parse(hfConfigJson);
  } catch (cause) {
    throw dataError(`model ${role}: config.json is not JSON`, { cause });
  }
  return parseModelConfig(config, head);
}
