/**
 * Everything needed to go on training with the same bits: parameters, both optimizer moments, the moving average and
 * the outer momentum of every model, and the number of optimizer steps (or rounds). One safetensors file; tensors are
 * named `<role>.<ema|m|outer|param|v>.<parameter>`, so each memory is one contiguous block of the file.
 */
import { createHash } from "node:crypto";
import { makeLayout, type Layout } from "../engine/layout.js";
import { dataError } from "../shared/errors.js";
import { SafetensorsFile, writeSafetensors } from "../shared/safetensors.js";
import type { TrainedModel } from "./trained-model.js";

/** Metadata keys of a state file. */
const STAGE = "troupe_stage";
const OPTIMIZER_STEP = "troupe_optimizer_step";
const DIGEST = "troupe_digest";

/** Where a state stands: after which step, and by which history (./state-digest). */
export interface StatePosition {
  readonly optimizerStep: number;
  readonly digest: string;
}

const byRole = (models: readonly TrainedModel[]): TrainedModel[] =>
  [...models].sort((a, b) => (a.role < b.role ? -1 : 1));

function stateLayout(models: readonly TrainedModel[]): Layout {
  const shapes: Record<string, readonly number[]> = {};
  for (const { role, layout, memories } of models) {
    for (const memory of memories.keys()) {
      for (const { name, shape } of layout.entries) shapes[`${role}.${memory}.${name}`] = shape;
    }
  }
  return makeLayout(shapes);
}

export async function saveState(
  path: string,
  stage: string,
  { optimizerStep, digest }: StatePosition,
  models: readonly TrainedModel[],
): Promise<void> {
  const metadata = {
    format: "pt",
    [STAGE]: stage,
    [OPTIMIZER_STEP]: String(optimizerStep),
    [DIGEST]: digest,
  };
  await writeSafetensors(path, stateLayout(models).entries, memoriesOf(models), metadata);
}

/** One memory at a time, in the file's order: a state is never there twice. */
async function* memoriesOf(models: readonly TrainedModel[]): AsyncIterable<Float32Array> {
  for (const { memories } of byRole(models)) for (const arena of memories.values()) yield await arena.read();
}

/**
 * Fills the models' memories from a state file.
 * @returns where it stands
 * @throws {TroupeError} DATA, before anything is changed, when the file is of another stage or of other models; DATA or
 *   STORAGE when its values cannot be read to the end: the memories are then of no use
 */
export async function restoreState(
  path: string,
  stage: string,
  models: readonly TrainedModel[],
): Promise<StatePosition> {
  const file = await SafetensorsFile.open(path);
  try {
    const { metadata, tensors } = file.header;
    if (metadata[STAGE] !== stage)
      throw dataError(
        `${path}: expected a training state of stage ${stage}, got ${metadata[STAGE] ?? "none"}`,
      );
    const optimizerStep = Number(metadata[OPTIMIZER_STEP]);
    if (!Number.isSafeInteger(optimizerStep) || optimizerStep < 0) {
      throw dataError(
        `${path}: ${OPTIMIZER_STEP} must be a whole number, got ${metadata[OPTIMIZER_STEP] ?? "none"}`,
      );
    }
    const layout = stateLayout(models);
    for (const { name, shape } of tensors) {
      const entry = layout.byName.get(name);
      if (entry === undefined)
        throw dataError(`${path}: tensor ${name} does not belong to the models being trained`);
      if (entry.shape.join() !== shape.join()) {
        throw dataError(
          `${path}: tensor ${name} has shape [${shape.join(", ")}], expected [${entry.shape.join(", ")}]`,
        );
      }
    }
    if (tensors.length !== layout.entries.length) {
      const present = new Set(tensors.map((tensor) => tensor.name));
      throw dataError(
        `${path}: tensor ${layout.entries.find(({ name }) => !present.has(name))?.name} is missing`,
      );
    }
    const tensorOf = new Map(tensors.map((tensor) => [tensor.name, tensor]));
    for (const { role, memories } of models) {
      for (const [memory, arena] of memories) {
        const values = await arena.read();
        for (const { name, offset, size } of arena.layout.entries)
          await file.readInto(
            tensorOf.get(`${role}.${memory}.${name}`)!,
            values.subarray(offset, offset + size),
          );
        await arena.write(values);
      }
    }
    return { optimizerStep, digest: metadata[DIGEST] ?? "" };
  } finally {
    await file.close();
  }
}

/** Fingerprint of the state: equal exactly when the values and the step are. Hex sha256. */
export async function stateSha256(optimizerStep: number, models: readonly TrainedModel[]): Promise<string> {
  const hash = createHash("sha256").update(`${OPTIMIZER_STEP} ${optimizerStep}\n`);
  for (const { role, memories } of byRole(models)) {
    for (const [memory, arena] of memories) {
      const values = await arena.read();
      hash.update(`${role}.${memory} ${values.length}\n`);
      hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
  }
  return hash.digest("hex");
}
