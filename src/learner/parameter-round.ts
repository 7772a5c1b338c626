/**
 * A round of parameter averaging on one learner (local SGD, Stich 2019, arXiv:1805.09767; DiLoCo, Douillard et al. 2023,
 * arXiv:2311.08105): AdamW steps on its own rows from the state all learners share, then one outer step together.
 *
 *   inner   θᵢ ← H AdamW steps of learner i, from θ
 *   reduce  Δ = Σ wᵢ·(θ − θᵢ),   Σ wᵢ = 1,   wᵢ ∝ rows trained
 *   outer   u ← μ·u + Δ,   θ ← θ − η·(Δ + μ·u)                     Nesterov, as torch.optim.SGD
 *
 * AdamW's moments are averaged with the same weights (or start every round from 0), so all learners hold the same bits
 * between rounds. Until the outer step the shared state stays restorable: a round that is given up leaves no trace.
 */
import { crc32 } from "node:zlib";
import type { Arena } from "../engine/engine.js";
import { shapeError } from "../shared/errors.js";
import type { ShardsRequest, ShardsResult, ShardStats } from "./learner-compute.js";
import type { TrainedModel } from "./trained-model.js";

export interface RoundSettings {
  /** η; 1 with momentum 0 is plain averaging. */
  readonly outerLearningRate: number;
  /** μ in [0, 1) */
  readonly outerMomentum: number;
  /** true: AdamW's moments are averaged too, for three times the bytes; false: they start every round from 0. */
  readonly averageMoments: boolean;
}

export interface InnerStepRequest extends ShardsRequest {
  readonly learningRates: Readonly<Record<string, number>>;
  /** Number of this inner step since the stage began, from 1 (bias correction of averaged moments). */
  readonly optimizerStep: number;
  /** The same since the round began, from 1 (of moments that began with it). */
  readonly innerStep: number;
}

export interface InnerStepResult {
  readonly stats: readonly ShardStats[];
  /** Before clipping, by role. */
  readonly gradNorms: Readonly<Record<string, number>>;
}

export interface Contribution {
  /** By role in name order: wᵢ·(θ − θᵢ), then wᵢ·mᵢ and wᵢ·vᵢ when moments are averaged. Empty for weight 0. */
  readonly values: Float32Array;
  /** Fingerprint of the state the round started from. */
  readonly startCrc32: number;
  /** Elements of everybody's contribution; also told when this one is empty. */
  readonly elementCount: number;
}

export interface OuterStepRequest {
  /** Sum of all contributions, laid out as they are. Taken over. */
  readonly total: Float32Array;
  /** Of the round. */
  readonly step: number;
  /** Inner steps of the round: the moving average decays once for each. */
  readonly updates: number;
}

/** What a round needs of the learner. */
export interface RoundCompute {
  /** In role-name order. */
  readonly models: readonly TrainedModel[];
  computeShards(request: ShardsRequest): Promise<ShardsResult>;
  /** One AdamW step without the moving average. @throws {TroupeError} NUMERIC, nothing changed */
  adamw(
    gradients: Float32Array,
    learningRates: Readonly<Record<string, number>>,
    optimizerStep: number,
  ): Promise<Readonly<Record<string, number>>>;
}

/** A memory that is exchanged, and where it lies in a contribution. */
interface Block {
  readonly arena: Arena;
  readonly isParameter: boolean;
  readonly offset: number;
  readonly size: number;
}

export class ParameterRound {
  /** The shared state, laid out as a contribution; undefined between rounds. */
  private start: Float32Array | undefined;
  private readonly blocks: readonly Block[];
  private readonly elementCount: number;

  constructor(
    private readonly compute: RoundCompute,
    private readonly settings: RoundSettings,
  ) {
    const blocks: Block[] = [];
    let offset = 0;
    for (const { memories, layout } of compute.models) {
      for (const name of settings.averageMoments ? (["param", "m", "v"] as const) : (["param"] as const)) {
        blocks.push({ arena: memories.get(name)!, isParameter: name === "param", offset, size: layout.size });
        offset += layout.size;
      }
    }
    this.blocks = blocks;
    this.elementCount = offset;
  }

  /**
   * One AdamW step on this learner's shards of a minibatch. The gradient is that of its own mean loss: the denominators
   * are the whole minibatch's, so the sum is scaled up by shardCount / shards.
   * @throws {TroupeError} NUMERIC for a gradient that is not finite; the step changed nothing
   */
  async innerStep(request: InnerStepRequest): Promise<InnerStepResult> {
    this.start ??= await this.copyOfState();
    if (request.shards.length === 0) return { stats: [], gradNorms: {} };
    const { nodes, stats } = await this.compute.computeShards(request);
    const [{ gradients }, ...others] = nodes;
    for (const other of others) for (let i = 0; i < gradients.length; i++) gradients[i] += other.gradients[i];
    const scale = request.shardCount / request.shards.length;
    if (scale !== 1) for (let i = 0; i < gradients.length; i++) gradients[i] *= scale;
    const { averageMoments } = this.settings;
    const step = averageMoments ? request.optimizerStep : request.innerStep;
    const gradNorms = await this.compute.adamw(gradients, request.learningRates, step);
    return { stats, gradNorms };
  }

  /**
   * This learner's part of the average; the arenas hold the shared state again.
   * @param weight this learner's share of the rows that all of them trained in the round, 0 to 1
   */
  async contribution(weight: number): Promise<Contribution> {
    const start = this.start ?? (await this.copyOfState());
    const startCrc32 = await this.fingerprint(start);
    if (weight === 0) {
      await this.rollBack();
      return { values: new Float32Array(0), startCrc32, elementCount: this.elementCount };
    }
    for (const { arena, isParameter, offset, size } of this.blocks) {
      const values = await arena.read();
      for (let i = 0, at = offset; i < size; i++, at++) {
        const shared = start[at];
        start[at] = weight * (isParameter ? shared - values[i] : values[i]);
        values[i] = shared;
      }
      await arena.write(values);
    }
    this.start = undefined;
    await this.clearUnsharedMoments();
    return { values: start, startCrc32, elementCount: this.elementCount };
  }

  /** The outer step on the shared state. */
  async outerStep({ total, updates }: OuterStepRequest): Promise<void> {
    if (total.length !== this.elementCount)
      throw shapeError(`outer step: expected ${this.elementCount} elements, got ${total.length}`);
    for (const { arena, isParameter, offset, size } of this.blocks) {
      if (!isParameter) await arena.write(total.subarray(offset, offset + size));
    }
    const parameters = this.blocks.filter(({ isParameter }) => isParameter);
    for (const [i, model] of this.compute.models.entries()) {
      const { offset, size } = parameters[i];
      const outer = model.memories.get("outer")!;
      const [values, momentum] = [await model.params.read(), await outer.read()];
      nesterovStep(values, momentum, total.subarray(offset, offset + size), this.settings);
      await model.params.write(values);
      await outer.write(momentum);
      await model.average(updates);
    }
  }

  /** Forgets what was trained since the last outer step. Idempotent. */
  async rollBack(): Promise<void> {
    const { start } = this;
    if (start === undefined) return;
    for (const { arena, offset, size } of this.blocks)
      await arena.write(start.subarray(offset, offset + size));
    this.start = undefined;
    await this.clearUnsharedMoments();
  }

  private async copyOfState(): Promise<Float32Array> {
    const copy = new Float32Array(this.elementCount);
    for (const { arena, offset } of this.blocks) copy.set(await arena.read(), offset);
    return copy;
  }

  private async clearUnsharedMoments(): Promise<void> {
    if (this.settings.averageMoments) return;
    for (const { memories } of this.compute.models)
      for (const name of ["m", "v"] as const) await memories.get(name)!.clear();
  }

  /** Of everything the next state follows from: learners that differ there must not go on as if they agreed. */
  private async fingerprint(start: Float32Array): Promise<number> {
    let crc = crc32(bytesOf(start));
    for (const { memories } of this.compute.models) {
      for (const name of ["ema", "outer"] as const) {
        const arena = memories.get(name);
        if (arena !== undefined) crc = crc32(bytesOf(await arena.read()), crc);
      }
    }
    return crc;
  }
}

/**
 * u ← μ·u + Δ, θ ← θ − η·(Δ + μ·u), in place, each result rounded to float32 once.
 *
 * @param values   `[N]` θ  @param momentum `[N]` u  @param delta `[N]` Δ
 */
export function nesterovStep(
  values: Float32Array,
  momentum: Float32Array,
  delta: Float32Array,
  { outerLearningRate, outerMomentum }: Pick<RoundSettings, "outerLearningRate" | "outerMomentum">,
): void {
  for (let i = 0; i < values.length; i++) {
    momentum[i] = outerMomentum * momentum[i] + delta[i];
    values[i] -= outerLearningRate * (delta[i] + outerMomentum * momentum[i]);
  }
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);
