import type { Config } from "../config/schema.js";

/** What a worker's compute thread needs to open its engine. */
export interface EngineSettings {
  readonly name: Config["engine"]["name"];
  readonly provider: Config["engine"]["provider"];
  readonly threads: number;
  readonly recompute: Config["engine"]["recompute"];
  readonly frozenWeights: Config["engine"]["frozenWeights"];
}

/** A run's results must not depend on the machine or on how many processes share it, and kernels differ by threads. */
const DEFAULT_THREADS = 1;

export function engineSettings({ engine }: Config): EngineSettings {
  const { name, provider, threads, recompute, frozenWeights } = engine;
  return { name, provider, threads: threads ?? DEFAULT_THREADS, recompute, frozenWeights };
}
