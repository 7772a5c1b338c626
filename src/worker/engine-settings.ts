import { availableParallelism } from "node:os";
import type { Config } from "../config/schema.js";

/** What a worker's compute thread needs to open its engine. */
export interface EngineSettings {
  readonly name: Config["engine"]["name"];
  readonly provider: Config["engine"]["provider"];
  readonly threads: number;
}

/** @param processesOfRole how many processes of this role share the machine's cores while they work */
export function engineSettings({ engine }: Config, processesOfRole: number): EngineSettings {
  const fairShare = Math.max(1, Math.floor(availableParallelism() / Math.max(1, processesOfRole)));
  return { name: engine.name, provider: engine.provider, threads: engine.threads ?? fairShare };
}
