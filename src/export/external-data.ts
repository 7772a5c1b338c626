/**
 * Weights of an ONNX model in files beside it: a protobuf message, and so a model in one file, ends at 2 GiB. The files
 * are named as transformers.js looks for them: model.onnx_data, model.onnx_data_1, …
 */
import { open } from "node:fs/promises";
import type { Graph } from "../engine/trace/graph.js";

/** Just below 2 GiB, which is also the most that a browser reads into one buffer. */
export const MAX_FILE_BYTES = 2 ** 31 - 2 ** 20;
/** Offsets that the ONNX format asks for, so that a reader can map the file into memory. */
const ALIGNMENT = 4096;
/** Smaller tensors stay in the model: shapes are inferred from some of them. */
const SMALLEST_BYTES = 1024;

export interface DataFile {
  readonly name: string;
  readonly tensors: readonly { readonly offset: number; readonly bytes: Uint8Array }[];
}

/**
 * Makes the large tensors of a graph refer to files instead of holding their bytes.
 * @param modelName    the model's file name
 * @param maxFileBytes of each file; a larger tensor gets a file of its own
 * @returns the files to write beside the model
 */
export function moveOut(graph: Graph, modelName: string, maxFileBytes: number): DataFile[] {
  const files: { name: string; tensors: { offset: number; bytes: Uint8Array }[] }[] = [];
  let end = Infinity;
  graph.initializers = graph.initializers.map((tensor) => {
    const { bytes } = tensor;
    if (bytes.length < SMALLEST_BYTES) return tensor;
    let offset = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
    if (offset + bytes.length > maxFileBytes) {
      const suffix = files.length === 0 ? "" : `_${files.length}`;
      files.push({ name: `${modelName}_data${suffix}`, tensors: [] });
      offset = 0;
    }
    const file = files[files.length - 1];
    file.tensors.push({ offset, bytes });
    end = offset + bytes.length;
    return { ...tensor, external: { file: file.name, offset } };
  });
  return files;
}

export async function writeDataFile(path: string, { tensors }: DataFile): Promise<void> {
  const handle = await open(path, "w");
  try {
    let end = 0;
    for (const { offset, bytes } of tensors) {
      await handle.writeFile(new Uint8Array(offset - end));
      await handle.writeFile(bytes);
      end = offset + bytes.length;
    }
  } finally {
    await handle.close();
  }
}
