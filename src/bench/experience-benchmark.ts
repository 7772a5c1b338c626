/** How many experiences one coordinator takes: admitted, on disk, acknowledged. */
import type { Benchmark } from "./benchmarks.js";
import { contest, ourSide } from "./contest.js";

const CASES = [
  { rollouts: 32, experienceBytes: 1024, collection: 16_384, promptsPerTask: 64 },
  { rollouts: 32, experienceBytes: 16_384, collection: 4_096, promptsPerTask: 64 },
] as const;

const TARGET = "no peer; target 20,000 experiences/s or 400 MB/s";

export const experience: Benchmark = async function* ({ rounds, only }) {
  for (const work of CASES) {
    const config = `${work.experienceBytes / 1024} KiB each, ${work.rollouts} workers`;
    if (!config.includes(only)) continue;
    const [ours] = await contest([ourSide("experience", { ...work, threads: 1 })], { rounds, warmups: 2 });
    const perSecond = ours.units / ours.seconds;
    const cpuSeconds = ours.cpuSeconds / ours.units;
    const row = { name: "experience", config, peer: null, peerName: TARGET, ratio: null };
    yield { ...row, unit: "experiences/s (more is better)", ours: perSecond };
    yield { ...row, unit: "MB/s (more is better)", ours: (perSecond * work.experienceBytes) / 1e6 };
    yield { ...row, unit: "µs CPU of the coordinator each (less is better)", ours: cpuSeconds * 1e6 };
    yield { ...row, unit: "MB peak (less is better)", ours: ours.peakMb };
  }
};
