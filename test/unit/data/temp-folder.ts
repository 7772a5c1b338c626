import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { configSchema } from "../../../src/config/schema.js";
import type { DataConfig } from "../../../src/data/rows.js";

/** A folder that goes away after the file's tests. */
export function tempFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "troupe-data-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

let next = 0;

/** Writes a file into `folder` and returns its path. */
export function writeTemp(folder: string, content: string | Uint8Array, name = `file-${next++}`): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

export const jsonLines = (rows: readonly unknown[]): string =>
  rows.map((row) => JSON.stringify(row) + "\n").join("");

/** `config.data` with the schema's defaults. */
export function dataConfig(path: string, overrides: Partial<DataConfig> = {}): DataConfig {
  return { ...configSchema.parse({ data: { path } }).data, ...overrides };
}
