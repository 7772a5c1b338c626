/** What it takes until every rollout worker computes with the version a learner publishes. */
import type { Benchmark } from "./benchmarks.js";
import { contest, ourSide } from "./contest.js";
import { MODELS } from "./models.js";

export const weights: Benchmark = async function* ({ threads, rounds, only }) {
  for (const [model, shape] of Object.entries(MODELS)) {
    for (const route of ["host", "remote"]) {
      for (const workers of [1, 2, 4]) {
        const config = `${model} R${workers} ${route}`;
        if (!config.includes(only)) continue;
        const side = ourSide("weights", { ...shape, route, workers, threads });
        const [{ seconds, cpuSeconds, facts }] = await contest([side], { rounds, warmups: 1 });
        const row = { name: "weights", config, peer: null, peerName: "no peer", ratio: null };
        yield { ...row, unit: "ms from publishing to the last swap (less is better)", ours: seconds * 1000 };
        yield { ...row, unit: "ms of them until it is stored", ours: facts.publishSeconds * 1000 };
        yield { ...row, unit: "s CPU of all processes (less is better)", ours: cpuSeconds };
        yield {
          ...row,
          unit: `MB written to files, of a file of ${facts.fileMb.toFixed(1)}`,
          ours: facts.writtenMb,
        };
        yield { ...row, unit: "MB sent", ours: facts.sentMb };
      }
    }
  }
};
