import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { parseAllDocuments, parseDocument } from "yaml";
import { packageRoot } from "../../../src/shared/paths.js";

export const pathOf = (...parts: string[]): string => join(packageRoot, ...parts);
export const read = (...parts: string[]): string => readFileSync(pathOf(...parts), "utf8");

/** Repository-relative paths of all files under a folder. */
export function filesUnder(folder: string): string[] {
  return readdirSync(pathOf(folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(packageRoot, join(entry.parentPath, entry.name)))
    .filter((path) => !path.startsWith("deploy/secrets/"));
}

/** Every document of a YAML file; throws on any syntax error or warning. */
export function readYaml(path: string): unknown[] {
  return parseAllDocuments(read(path), { merge: true }).map((document) => {
    const problem = document.errors[0] ?? document.warnings[0];
    if (problem !== undefined) throw new Error(`${path}: ${problem.message}`);
    return document.toJS() as unknown;
  });
}

export function readOneYaml<T>(path: string): T {
  const document = parseDocument(read(path), { merge: true });
  if (document.errors.length > 0) throw document.errors[0];
  return document.toJS() as T;
}
