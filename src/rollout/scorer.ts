import type { Tensor } from "@tensorflow/tfjs";
import type { Arena, Engine, Program, Tensors } from "../engine/engine.js";
import type { FrozenForm } from "../engine/frozen-weights.js";
import { listedLogprobs, listedValues, specKey } from "../models/forward.js";
import type { ModelSpec } from "../models/model-spec.js";
import { dataError } from "../shared/errors.js";
import { mapAhead } from "../shared/map-ahead.js";
import {
  bucketOf,
  groupByShape,
  listedOf,
  PASS_TOKENS,
  rowsOfPass,
  sequenceStep,
  type RowGroup,
  type RowShape,
} from "./token-buckets.js";

/** A model and the arena that holds its parameters. */
export interface Replica {
  readonly spec: ModelSpec;
  /** With `base`: the rest of the model, its adapters or head. */
  readonly params: Arena;
  /** Weights that other models read as well. @default `params` holds everything */
  readonly base?: Arena;
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

/** What is read of a sequence: response token i is predicted, and valued, at position P + i − 1. */
interface Reading {
  readonly what: string;
  /** First position read, and how many. */
  readonly of: (sequence: ScorableSequence) => { readonly start: number; readonly count: number };
  /** Positions read of a row of `tokens`, `count` of which are needed. */
  readonly listed: (count: number, tokens: number) => number;
  /** `[N]` from the rows, the positions read and the tokens after them. */
  readonly body: (
    params: Tensors,
    inputs: { readonly ids: Tensor; readonly at: Tensor; readonly labels: Tensor },
  ) => Tensor;
}

const ofResponse: Pick<Reading, "of" | "listed"> = {
  of: ({ promptIds, responseIds }) => ({ start: promptIds.length - 1, count: responseIds.length }),
  listed: listedOf,
};

const ofLastToken: Pick<Reading, "of" | "listed"> = {
  of: ({ promptIds, responseIds }) => ({ start: promptIds.length + responseIds.length - 1, count: 1 }),
  listed: () => 1,
};

/**
 * Forward passes of the frozen judges over whole sequences, in fixed micro-batches. Every number depends on
 * (weights, sequence) only: the shape of its pass follows from the sequence's own lengths, and rows do not see each
 * other.
 */
export class Scorer {
  /**
   * @param longest    tokens that a sequence may have; part of the compiled shapes: keep it equal wherever the same bits are wanted
   * @param passTokens tokens of one forward pass, padding included; a longer sequence has a pass of its own
   * @param onPass     called after every pass; throws to stop
   */
  constructor(
    private readonly engine: Engine,
    private readonly longest = Infinity,
    private readonly passTokens = PASS_TOKENS,
    private readonly onPass: () => void = () => undefined,
  ) {}

  /**
   * Sequences of a pass over rows of `tokens`; short groups are filled by repeating one. One or an even number: int8
   * products take rows in pairs, and what is left over at the end goes through another kernel.
   */
  private rowsOf(tokens: number): number {
    return rowsOfPass(tokens, this.passTokens);
  }

  /**
   * log π(response token i) for every sequence, each `[R]`.
   * @param temperature of the distribution, the one the answers were sampled at
   */
  logprobs(
    model: Replica,
    sequences: readonly ScorableSequence[],
    temperature: number,
  ): Promise<Float32Array[]> {
    return this.read(model, sequences, {
      ...ofResponse,
      what: `logprobs t${temperature}`,
      body: (params, { ids, ...listed }) =>
        listedLogprobs(model.spec, params, { ids }, { ...listed, temperature }),
    });
  }

  /** V(s_i), the scalar head at position P + i − 1 (the state before token i), for every sequence, each `[R]`. */
  values(critic: Replica, sequences: readonly ScorableSequence[]): Promise<Float32Array[]> {
    return this.read(critic, sequences, { ...ofResponse, ...scalarsOf(critic) });
  }

  /** The reward model's score of every sequence: its scalar head at the last token. */
  async scores(reward: Replica, sequences: readonly ScorableSequence[]): Promise<number[]> {
    const scores = await this.read(reward, sequences, { ...ofLastToken, ...scalarsOf(reward) });
    return scores.map(([score]) => score);
  }

  /** Runs every sequence through the program of its shape. */
  private async read(
    replica: Replica,
    sequences: readonly ScorableSequence[],
    reading: Reading,
  ): Promise<Float32Array[]> {
    const { spec, params, base } = replica;
    const arenas: Readonly<Record<string, Arena>> = base === undefined ? { params } : { params, base };
    const limit = Math.min(spec.contextTokens, this.longest);
    const step = sequenceStep(limit);
    const shapes = sequences.map((sequence): RowShape => {
      const length = lengthOf(sequence);
      if (length > limit)
        throw dataError(
          `${reading.what}: a sequence of ${length} tokens exceeds ${limit}, the model's context or what prompt and answer may have`,
        );
      const tokens = bucketOf(length, step, limit);
      return { tokens, listed: reading.listed(reading.of(sequence).count, tokens) };
    });
    const results = new Array<Float32Array>(sequences.length);
    // Sessions with int8 matrices hold them themselves and are run one at a time, on all threads.
    const sideBySide = replica.form === undefined;
    const pass = async ({ shape, members }: RowGroup): Promise<void> => {
      const rows = Array.from(
        { length: this.rowsOf(shape.tokens) },
        (_, row) => sequences[members[row] ?? members[0]],
      );
      const program = programOf(replica, reading, shape, rows.length);
      const executable = await this.engine.compile(program, { sideBySide });
      const { listed } = await executable.run(arenas, inputsOf(rows, reading, shape));
      members.forEach((member, row) => {
        const first = row * shape.listed;
        results[member] = (listed as Float32Array).slice(first, first + reading.of(rows[row]).count);
      });
      this.onPass();
    };
    const passes = groupByShape(shapes, (tokens) => this.rowsOf(tokens));
    for await (const _ of mapAhead(passes, this.engine.lanes ?? 1, pass));
    return results;
  }
}

const lengthOf = ({ promptIds, responseIds }: ScorableSequence): number =>
  promptIds.length + responseIds.length;

const scalarsOf = ({ spec }: Replica): Pick<Reading, "what" | "body"> => ({
  what: "values",
  body: (params, { ids, at }) => listedValues(spec, params, { ids }, at),
});

/**
 * Inputs: ids int32 `[rows, tokens]`; at int32 `[rows·listed]`, flat index of each position read; labels int32
 * `[rows·listed]`, the token after it. Output: listed `[rows·listed]`.
 */
function programOf(
  { spec, params, base, form }: Replica,
  { what, body }: Reading,
  { tokens, listed }: RowShape,
  rows: number,
): Program {
  const { layout } = params;
  const kind = form !== undefined ? " int8" : base !== undefined ? " split" : "";
  const column = { shape: [rows * listed], dtype: "int32" } as const;
  return {
    key: `score ${what} ${specKey(spec)}${kind} B${rows} T${tokens} N${listed}`,
    arenas: {
      params: form === undefined ? { layout, access: "read" } : { layout, access: "frozen", form },
      ...(base === undefined ? {} : { base: { layout: base.layout, access: "read" } }),
    },
    inputs: { ids: { shape: [rows, tokens], dtype: "int32" }, at: column, labels: column },
    body: (arenas, { ids, at, labels }) => ({
      outputs: { listed: body({ ...arenas.base, ...arenas.params }, { ids, at, labels }) },
    }),
  };
}

function inputsOf(rows: readonly ScorableSequence[], reading: Reading, { tokens, listed }: RowShape) {
  const ids = new Int32Array(rows.length * tokens);
  // Places beyond what a row needs read its first position.
  const at = Int32Array.from({ length: rows.length * listed }, (_, n) => Math.floor(n / listed) * tokens);
  const labels = new Int32Array(rows.length * listed);
  rows.forEach((sequence, row) => {
    const first = row * tokens;
    ids.set(sequence.promptIds, first);
    ids.set(sequence.responseIds, first + sequence.promptIds.length);
    const { start, count } = reading.of(sequence);
    for (let i = 0; i < count; i++) {
      at[row * listed + i] = first + start + i;
      if (start + i + 1 < tokens) labels[row * listed + i] = ids[first + start + i + 1];
    }
  });
  return { ids, at, labels };
}
