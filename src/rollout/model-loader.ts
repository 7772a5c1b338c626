/** Brings a rollout worker's models to the versions a task names. */
import type { ModelRef__Output } from "../rpc/generated/troupe/v1/ModelRef.js";
import { protocolError } from "../shared/errors.js";
import type { ArtifactClient } from "../worker/artifact-client.js";
import type { ComputePool } from "../worker/compute-pool.js";
import type * as rolloutThread from "./rollout-compute.js";
import type { Role } from "./rollout-replicas.js";

export interface LoaderState {
  readonly compute: Pick<ComputePool<typeof rolloutThread>, "run">;
  /** sha256 of the parameters loaded, by model role. */
  readonly loaded: Map<string, string>;
}

export class ModelLoader {
  constructor(
    private readonly state: LoaderState,
    private readonly artifacts: Pick<ArtifactClient, "fetch" | "forget">,
    private readonly onLoaded: (seconds: number) => void,
  ) {}

  /**
   * Fetches and checks the parameters, then replaces the model's. Calls of the compute thread run one after another:
   * never in the middle of a sequence. What is loaded already costs nothing; after an error the old ones serve on.
   */
  async load(model: ModelRef__Output): Promise<void> {
    const { compute, loaded } = this.state;
    if (model.parameters === null)
      throw protocolError(`model ${model.role}: a rollout task needs parameters, got none`);
    const { sha256 } = model.parameters;
    if (loaded.get(model.role) === sha256) return;
    const startedMs = performance.now();
    const path = await this.artifacts.fetch(model.parameters);
    await compute.run("loadModel", { role: model.role as Role, path });
    loaded.set(model.role, sha256);
    await this.artifacts.forget(sha256);
    this.onLoaded((performance.now() - startedMs) / 1000);
  }
}
