/**
 * Stand-ins for the compute threads of both worker roles: everything around them (sessions, streams, codecs, journal,
 * all-reduce, votes) is the real thing, only the numbers are constants.
 */
import { readFile, writeFile } from "node:fs/promises";
import { subtreesOf } from "../learner/tree-sum.js";
import type { ExportStateRequest, ShardsRequest } from "../learner/learner-compute.js";
import type { PerformedTask, RolloutTask } from "../rollout/rollout-compute.js";
import type { ScoredRollout } from "../rl/types.js";
import type { ShardRows } from "../rpc/codec/shard.js";
import { sleep } from "../shared/abort.js";
import { writeSafetensors } from "../shared/safetensors.js";

/** What sessions use of a compute thread. */
export interface FakeCompute {
  run(name: string, argument: unknown): Promise<unknown>;
}

/** Answers of `responseTokens` equal tokens, scored 1, `taskMs` after the task was given. */
export function fakeRolloutCompute(responseTokens: number, taskMs: number): FakeCompute {
  const columns = {
    responseIds: new Int32Array(responseTokens).fill(7),
    logprobs: new Float32Array(responseTokens).fill(-1),
    refLogprobs: new Float32Array(responseTokens).fill(-1),
    values: new Float32Array(responseTokens),
  };
  return {
    async run(name, argument) {
      if (name !== "perform") return undefined;
      // Never without a turn of the loop: a thousand of them in one process must not keep its sockets waiting.
      if (taskMs > 0) await sleep(taskMs);
      else await new Promise(setImmediate);
      const { prompts, policyVersion } = argument as RolloutTask;
      const rollouts = prompts.map((prompt): ScoredRollout => ({
        ...prompt,
        ...columns,
        policyVersion,
        score: 1,
        finishReason: "length",
      }));
      return { rollouts, generateMs: taskMs, scoreMs: 0 } satisfies PerformedTask;
    },
  };
}

/**
 * Gradients of `elements` zeros per tree node, `stepMs` after the step began; model files of the same size. Its state
 * is nothing but the digest.
 */
export function fakeLearnerCompute(elements: number, stepMs: number): FakeCompute {
  const gradients = new Float32Array(elements);
  const writeModel = (path: string) => writeSafetensors(path, [{ name: "w", shape: [elements] }], gradients);
  return {
    async run(name, argument) {
      switch (name) {
        case "configure":
          return { parameterCount: elements, engine: "none" };
        case "computeShards": {
          if (stepMs > 0) await sleep(stepMs);
          const { shards } = argument as ShardsRequest;
          const nodes =
            shards.length === 0
              ? []
              : subtreesOf(shards[0].index, shards[shards.length - 1].index).map((node) => ({
                  ...node,
                  gradients,
                }));
          const stats = shards.map(({ index }) => ({
            shard: index,
            values: { tokens: 1, absLogRatioSum: 0, loss: 1 },
          }));
          return { nodes, elementCount: elements, stats };
        }
        case "measureGradients":
          return { gradients: argument, gradNorms: {} };
        case "applyGradients":
          return { gradNorms: {} };
        case "evaluate":
          return evaluated((argument as { rows: ShardRows }).rows);
        case "exportModel":
        case "exportAdapter":
          return writeModel((argument as { path: string }).path);
        case "exportState": {
          const { path, digest } = argument as ExportStateRequest;
          return writeFile(path, digest);
        }
        case "loadState":
          return { digest: await readFile(argument as string, "utf8") };
        case "stateSha256":
          return "0".repeat(64);
        default:
          return undefined;
      }
    },
  };
}

function evaluated(rows: ShardRows): Record<string, Float64Array> {
  const ones = () => new Float64Array(rows.rows.length).fill(1);
  return rows.kind === "reward"
    ? { chosen_score: ones(), rejected_score: new Float64Array(rows.rows.length) }
    : { nll: ones(), tokens: ones() };
}
