/** A learner's optimizer step in stage sft: gradients of its micro-shards, clip, AdamW. */
import { LearnerCompute } from "../../learner/learner-compute.js";
import { roundTokens } from "../../learner/packed-rows.js";
import type { RunShape } from "../../learner/packing.js";
import { choosingRunShapes, layCosts } from "../../learner/run-shapes.js";
import { parseModelConfig } from "../../models/model-spec.js";
import { streamOf, uniformAt } from "../../shared/rng.js";
import { atOnce } from "../../shared/steps.js";
import { cutMicroShards } from "../../stages/micro-shards.js";
import { BENCH_OPTIMIZER, benchConfigJson, benchIds, shardsFor } from "./bench-model.js";
import type { ModelShape, Side } from "./side.js";

export interface TrainStepConfig extends ModelShape {
  readonly threads: number;
  readonly batch: number;
  readonly length: number;
  /** Tokens of each row. @default `length` for all */
  readonly lengths?: readonly number[];
  /** Micro-shards of the step. @default one a thread, which is what makes a learner use its threads */
  readonly shards?: number;
}

const MICRO_BATCH_TOKENS = 1024;

/** As a stage chooses them whose rows have these lengths, in any minibatch. */
function runShapesFor(lengths: readonly number[], shards: number, shape: ModelShape): RunShape[] {
  const stream = streamOf("run shapes");
  const minibatches = Array.from({ length: 32 }, (_, batch) => {
    const drawn = lengths.map((_, i) => {
      const length = lengths[Math.floor(lengths.length * uniformAt(1, stream, batch * lengths.length + i))];
      return { length, listed: length - 1 };
    });
    return cutMicroShards(drawn, shards, ({ length }) => length);
  });
  const costs = layCosts(parseModelConfig(JSON.parse(benchConfigJson(shape, "lm")), "lm"));
  return atOnce(
    choosingRunShapes(minibatches.flat(), Math.max(...lengths), {
      ...{ ...costs, budgetTokens: MICRO_BATCH_TOKENS, roundListed: roundTokens },
    }),
  );
}

export async function open(config: TrainStepConfig): Promise<Side> {
  const { batch, length, vocabulary, threads, shards = shardsFor(config.threads, config.batch) } = config;
  const lengths = config.lengths ?? new Array<number>(batch).fill(length);
  const compute = await LearnerCompute.open({
    stage: "sft",
    hyper: {},
    engine: { name: "onnx", threads },
    padId: 1,
    microBatchTokens: MICRO_BATCH_TOKENS,
    runShapes: runShapesFor(lengths, shards, config),
    models: [
      { role: "model", hfConfigJson: benchConfigJson(config, "lm"), head: "lm", file: null, initSeed: 1 },
    ],
    optimizers: { model: BENCH_OPTIMIZER },
  });
  const rows = lengths.map((tokens, i) => ({
    ids: benchIds(tokens, vocabulary, i + 1),
    lossMask: new Uint8Array(tokens).fill(1),
  }));
  const parts = cutMicroShards(rows, shards, (row) => row.ids.length).map((part, index) => ({
    index,
    rows: { kind: "sft" as const, rows: part },
  }));
  const targets = lengths.reduce((sum, tokens) => sum + tokens - 1, 0);
  let optimizerStep = 0;
  const repeat = async (): Promise<number> => {
    const { nodes } = await compute.computeShards({
      shards: parts,
      shardCount: shards,
      denominators: { main: targets, ptx: 0 },
    });
    optimizerStep++;
    await compute.applyGradients({
      gradients: nodes[0].gradients,
      learningRates: { model: 1e-4 },
      optimizerStep,
    });
    return 1;
  };
  const started = performance.now();
  await repeat();
  const firstMs = performance.now() - started;
  return { repeat, close: () => compute.close(), facts: { firstStepSeconds: firstMs / 1000 } };
}
