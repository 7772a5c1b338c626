/** A learner's optimizer step in stage ppo: actor and critic gradients of its micro-shards, clip, AdamW. */
import { LearnerCompute } from "../../learner/learner-compute.js";
import { cutMicroShards } from "../../stages/micro-shards.js";
import { BENCH_OPTIMIZER, BENCH_PPO_HYPER, benchConfigJson, benchIds, shardsFor } from "./bench-model.js";
import type { ModelShape, Side } from "./side.js";

export interface PpoUpdateConfig extends ModelShape {
  readonly threads: number;
  readonly batch: number;
  readonly promptTokens: number;
  readonly responseTokens: number;
}

export async function open(config: PpoUpdateConfig): Promise<Side> {
  const { batch, promptTokens, responseTokens, vocabulary, threads } = config;
  const model = (role: string, head: "lm" | "scalar", initSeed: number) => ({
    role,
    head,
    initSeed,
    hfConfigJson: benchConfigJson(config, head),
    file: null,
  });
  const compute = await LearnerCompute.open({
    stage: "ppo",
    hyper: BENCH_PPO_HYPER,
    engine: { name: "onnx", threads },
    padId: 1,
    models: [model("actor", "lm", 1), model("critic", "scalar", 2)],
    optimizers: { actor: BENCH_OPTIMIZER, critic: BENCH_OPTIMIZER },
  });
  const perToken = (value: (i: number) => number) =>
    Float32Array.from({ length: responseTokens }, (_, i) => value(i));
  const rows = Array.from({ length: batch }, (_, row) => ({
    promptIds: benchIds(promptTokens, vocabulary, row + 1),
    responseIds: benchIds(responseTokens, vocabulary, row + 1001),
    actionMask: new Uint8Array(responseTokens).fill(1),
    logprobs: perToken(() => -Math.log(vocabulary)),
    advantages: perToken((i) => Math.sin(row + i)),
    values: perToken((i) => 0.1 * Math.cos(row + i)),
    returns: perToken((i) => Math.cos(row * i)),
  }));
  // One micro-shard a thread, which is what makes a learner use its threads.
  const shards = shardsFor(threads, batch);
  const parts = cutMicroShards(rows, shards, () => promptTokens + responseTokens).map((part, index) => ({
    index,
    rows: { kind: "ppo" as const, rows: part },
  }));
  let optimizerStep = 0;
  const repeat = async (): Promise<number> => {
    const { nodes } = await compute.computeShards({
      shards: parts,
      shardCount: shards,
      denominators: { main: batch * responseTokens, ptx: 0 },
    });
    optimizerStep++;
    await compute.applyGradients({
      gradients: nodes[0].gradients,
      learningRates: { actor: 1e-4, critic: 1e-4 },
      optimizerStep,
    });
    return 1;
  };
  return { repeat, close: () => compute.close() };
}
