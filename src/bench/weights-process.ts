/** Process entry of the weights benchmark: the learner that publishes, or one rollout worker that takes up. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { layoutOf, type ModelSpec } from "../models/model-spec.js";
import { ModelLoader } from "../rollout/model-loader.js";
import type * as rolloutThread from "../rollout/rollout-thread.js";
import type { ArtifactRef__Output } from "../rpc/generated/troupe/v1/ArtifactRef.js";
import { handoverName } from "../rpc/handover.js";
import { writeSafetensors } from "../shared/safetensors.js";
import { ArtifactClient } from "../worker/artifact-client.js";
import { ComputePool } from "../worker/compute-pool.js";
import { openClients } from "../worker/coordinator-link.js";
import { benchConfigJson, benchSpec } from "./sides/bench-model.js";
import type { ModelShape } from "./sides/side.js";

export interface WeightsSettings extends ModelShape {
  readonly role: "learner" | "rollout";
  readonly workerId: string;
  readonly threads: number;
  readonly coordinator: string;
  readonly runId: string;
}

export type ToWeightsProcess =
  /** handoverDir "": the file is uploaded. */
  | { readonly kind: "publish"; readonly version: number; readonly handoverDir: string }
  | { readonly kind: "load"; readonly ref: ArtifactRef__Output };

export type FromWeightsProcess =
  | { readonly kind: "ready" }
  | { readonly kind: "published"; readonly ref: ArtifactRef__Output; readonly cpuSeconds: number }
  | { readonly kind: "loaded"; readonly sha256: string; readonly cpuSeconds: number }
  | { readonly kind: "failed"; readonly message: string };

const settings = JSON.parse(process.argv[2]) as WeightsSettings;
const say = (message: FromWeightsProcess): void => void process.send?.(message);
const artifacts = new ArtifactClient(openClients(settings.coordinator), {
  ...{ runId: settings.runId, epoch: 1, workerId: settings.workerId, incarnation: 1 },
});
const scratchDir = await mkdtemp(join(tmpdir(), "troupe-bench-"));
const perform =
  settings.role === "learner" ? makeLearner(benchSpec(settings, "lm")) : await makeRollout(settings);

process.once("disconnect", () => {
  void Promise.all([artifacts.close(), rm(scratchDir, { recursive: true, force: true })]).finally(() =>
    process.exit(0),
  );
});
process.on("message", (message: ToWeightsProcess) => {
  const before = process.cpuUsage();
  perform(message).then(
    (done) => {
      const { user, system } = process.cpuUsage(before);
      say({ ...done, cpuSeconds: (user + system) / 1e6 } as FromWeightsProcess);
    },
    (error: unknown) => say({ kind: "failed", message: String(error) }),
  );
});
say({ kind: "ready" });

/** Writes a version as `LearnerSession` does, and hands it over or uploads it. */
function makeLearner(spec: ModelSpec) {
  const layout = layoutOf(spec);
  const values = new Float32Array(layout.entries.reduce((sum, { shape }) => sum + elementsOf(shape), 0));
  for (let i = 0; i < values.length; i++) values[i] = (i % 1009) / 1009 - 0.5;
  return async (message: ToWeightsProcess) => {
    if (message.kind !== "publish") throw new Error("a learner publishes");
    const { version, handoverDir } = message;
    values[0] = version;
    const name = `actor/${version}`;
    const path = join(handoverDir === "" ? scratchDir : handoverDir, handoverName());
    await writeSafetensors(path, layout.entries, values);
    if (handoverDir !== "") return { kind: "published", ref: await artifacts.handOver(name, path) };
    const ref = await artifacts.publish(name, path);
    await rm(path);
    return { kind: "published", ref };
  };
}

/** Takes a version up as `RolloutSession` does: with its loader, into the memory of its compute thread. */
async function makeRollout(shape: WeightsSettings) {
  const compute = new ComputePool<typeof rolloutThread>("src/rollout/rollout-thread");
  const hfConfigJson = benchConfigJson(shape, "lm");
  await compute.run("configure", {
    engine: { name: "onnx", threads: shape.threads },
    models: [{ role: "actor", head: "lm", hfConfigJson }],
    eosIds: [0],
    slots: 8,
  });
  const loaded = new Map<string, string>();
  const loader = new ModelLoader({ compute, loaded }, artifacts, () => undefined);
  return async (message: ToWeightsProcess) => {
    if (message.kind !== "load") throw new Error("a rollout worker loads");
    const parameters = message.ref;
    await loader.load({ role: "actor", hfConfigJson, head: "lm", parameters, initSeed: 0, base: null });
    return { kind: "loaded", sha256: loaded.get("actor") };
  };
}

function elementsOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
