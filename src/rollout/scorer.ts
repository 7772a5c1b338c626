import type { Arena, Engine, Program } from "../engine/engine.js";
import type { FrozenForm } from "../engine/frozen-weights.js";
import { responseLogprobs, specKey, tokenValues } from "../models/forward.js";
import { layoutOf, type ModelSpec } from "../models/model-spec.js";
import { dataError } from "../shared/errors.js";
import { groupByBucket } from "./token-buckets.js";

/** Sequences are padded to a multiple of this many tokens. */
const SEQUENCE_BUCKET = 32;
/** Tokens of a forward pass: enough for full-speed matrix products, and few enough to waste little on a short group. */
export const PASS_TOKENS = 256;

/** A model and the arena that holds its parameters. */
export interface Replica {
  readonly spec: ModelSpec;
  readonly params: Arena;
  /** Where `params` holds matrices as int8. @default all float32 */
  readonly form?: FrozenForm;
}

/** Prompt and response of one sequence. */
export interface ScorableSequence {
  /** `[P]`, P ≥ 1 */
  readonly promptIds: Int32Array;
  /** `[R]` */
  readonly responseIds: Int32Array;
}

/**
 * Forward passes of the frozen judges over whole sequences, in fixed micro-batches. Every number depends on
 * (weights, sequence) only: the padded length follows from the sequence's own, and rows do not see each other.
 */
export class Scorer {
  /** @param passTokens tokens of one forward pass, padding included; a longer sequence has a pass of its own */
  constructor(
    private readonly engine: Engine,
    private readonly passTokens = PASS_TOKENS,
  ) {}

  /**
   * Sequences of a pass over rows of `tokens`; short groups are filled by repeating one. One or an even number: int8
   * products take rows in pairs, and what is left over at the end goes through another kernel.
   */
  private rowsOf(tokens: number): number {
    const rows = Math.floor(this.passTokens / tokens);
    return rows <= 1 ? 1 : rows - (rows % 2);
  }

  /**
   * log π(response token i) for every sequence, each `[R]`.
   * @param temperature of the distribution, the one the answers were sampled at
   */
  async logprobs(
    model: Replica,
    sequences: readonly ScorableSequence[],
    temperature: number,
  ): Promise<Float32Array[]> {
    const perToken = await this.forward(model, sequences, "logprobs", (tokens) =>
      this.program(model, tokens, `logprobs t${temperature}`, ({ params }, { ids }) => ({
        outputs: { perToken: responseLogprobs(model.spec, params, ids, { temperature }).logprobs },
      })),
    );
    // Index t predicts token t + 1: response token i is at P + i − 1.
    return sequences.map((sequence, i) => ofResponse(perToken[i], sequence));
  }

  /** V(s_i), the scalar head at position P + i − 1 (the state before token i), for every sequence, each `[R]`. */
  async values(critic: Replica, sequences: readonly ScorableSequence[]): Promise<Float32Array[]> {
    const perToken = await this.scalars(critic, sequences);
    return sequences.map((sequence, i) => ofResponse(perToken[i], sequence));
  }

  /** The reward model's score of every sequence: its scalar head at the last token. */
  async scores(reward: Replica, sequences: readonly ScorableSequence[]): Promise<number[]> {
    const perToken = await this.scalars(reward, sequences);
    return sequences.map(
      ({ promptIds, responseIds }, i) => perToken[i][promptIds.length + responseIds.length - 1],
    );
  }

  private scalars(model: Replica, sequences: readonly ScorableSequence[]): Promise<Float32Array[]> {
    return this.forward(model, sequences, "values", (tokens) =>
      this.program(model, tokens, "values", ({ params }, { ids }) => ({
        outputs: { perToken: tokenValues(model.spec, params, ids) },
      })),
    );
  }

  private program({ spec, form }: Replica, tokens: number, what: string, body: Program["body"]): Program {
    const rows = this.rowsOf(tokens);
    const layout = layoutOf(spec);
    return {
      key: `score ${what} ${specKey(spec)}${form === undefined ? "" : " int8"} B${rows} T${tokens}`,
      arenas: {
        params: form === undefined ? { layout, access: "read" } : { layout, access: "frozen", form },
      },
      inputs: { ids: { shape: [rows, tokens], dtype: "int32" } },
      body,
    };
  }

  /** Runs every sequence through the program of its padded length; row i of the result is sequence i's, unsliced. */
  private async forward(
    { spec, params }: Replica,
    sequences: readonly ScorableSequence[],
    what: string,
    programOf: (tokens: number) => Program,
  ): Promise<Float32Array[]> {
    const lengths = sequences.map(({ promptIds, responseIds }) => promptIds.length + responseIds.length);
    const limit = spec.contextTokens;
    const longest = Math.max(0, ...lengths);
    if (longest > limit)
      throw dataError(`${what}: a sequence of ${longest} tokens exceeds the model's context of ${limit}`);
    const results = new Array<Float32Array>(sequences.length);
    for (const { tokens, members } of groupByBucket(lengths, {
      bucket: SEQUENCE_BUCKET,
      limit,
      rowsOf: (tokens) => this.rowsOf(tokens),
    })) {
      const rows = this.rowsOf(tokens);
      const ids = new Int32Array(rows * tokens);
      for (let row = 0; row < rows; row++) {
        const { promptIds, responseIds } = sequences[members[row] ?? members[0]];
        ids.set(promptIds, row * tokens);
        ids.set(responseIds, row * tokens + promptIds.length);
      }
      const executable = await this.engine.compile(programOf(tokens));
      const { perToken } = await executable.run({ params }, { ids });
      const width = perToken.length / rows;
      members.forEach((member, row) => {
        results[member] = (perToken as Float32Array).subarray(row * width, (row + 1) * width);
      });
    }
    return results;
  }
}

function ofResponse(perToken: Float32Array, { promptIds, responseIds }: ScorableSequence): Float32Array {
  const start = promptIds.length - 1;
  return perToken.slice(start, start + responseIds.length);
}
