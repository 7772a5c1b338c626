/** Brings a rollout worker's models to the versions a task names. */
import type { ArtifactRef__Output } from "../rpc/generated/troupe/v1/ArtifactRef.js";
import type { ModelRef__Output } from "../rpc/generated/troupe/v1/ModelRef.js";
import { protocolError } from "../shared/errors.js";
import type { ArtifactClient } from "../worker/artifact-client.js";
import type { ComputePool } from "../worker/compute-pool.js";
import type * as rolloutThread from "./rollout-thread.js";
import type { Role } from "./rollout-compute.js";

export interface LoaderState {
  readonly compute: Pick<ComputePool<typeof rolloutThread>, "run">;
  /** sha256 of the parameters loaded, by model role; of bases loaded apart, by role and " base". */
  readonly loaded: Map<string, string>;
}

/** Name of the frozen weights that a model shares with another of the task; null when it has its own. */
export function baseName(
  model: ModelRef__Output,
  models: readonly ModelRef__Output[],
  frozenWeights: "f32" | "int8",
): string | null {
  if (model.base !== null) return model.base.sha256;
  const isUnderAdapters = frozenWeights === "f32" && models.some((other) => isBaseOf(model, other));
  return isUnderAdapters ? (model.parameters?.sha256 ?? null) : null;
}

const isBaseOf = (plain: ModelRef__Output, adapted: ModelRef__Output): boolean =>
  plain.base === null && adapted.base?.sha256 === plain.parameters?.sha256 && adapted.head === plain.head;

export class ModelLoader {
  constructor(
    private readonly state: LoaderState,
    private readonly artifacts: Pick<ArtifactClient, "fetch" | "forget">,
    private readonly onLoaded: (seconds: number) => void,
  ) {}

  /** All models of a task. Whole ones first: adapters may sit on one of them, whose file is then fetched once. */
  async loadAll(models: readonly ModelRef__Output[], frozenWeights: "f32" | "int8"): Promise<void> {
    const held = new Set<string>();
    for (const model of models) {
      if (model.base !== null) continue;
      await this.load(model);
      const name = baseName(model, models, frozenWeights);
      if (name !== null) held.add(`${name} ${model.head}`);
    }
    for (const model of models) {
      if (model.base === null) continue;
      if (!held.has(`${model.base.sha256} ${model.head}`))
        await this.bring("loadBase", model, model.base, `${model.role} base`);
      await this.load(model);
    }
  }

  /**
   * Fetches and checks the parameters, then replaces the model's. Calls of the compute thread run one after another:
   * never in the middle of a sequence. What is loaded already costs nothing; after an error the old ones serve on.
   */
  async load(model: ModelRef__Output): Promise<void> {
    if (model.parameters === null)
      throw protocolError(`model ${model.role}: a rollout task needs parameters, got none`);
    await this.bring("loadModel", model, model.parameters, model.role);
  }

  private async bring(
    act: "loadModel" | "loadBase",
    { role }: ModelRef__Output,
    file: ArtifactRef__Output,
    what: string,
  ): Promise<void> {
    const { compute, loaded } = this.state;
    const { sha256 } = file;
    if (loaded.get(what) === sha256) return;
    const startedMs = performance.now();
    const path = await this.artifacts.fetch(file);
    await compute.run(act, { role: role as Role, path });
    loaded.set(what, sha256);
    await this.artifacts.forget(sha256);
    this.onLoaded((performance.now() - startedMs) / 1000);
  }
}
