/** The folders of test/fixtures/models, which scripts/make-model-fixtures.py wrote. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Head } from "../../../src/models/model-spec.js";
import { packageRoot } from "../../../src/shared/paths.js";

export const FIXTURES = [
  "gpt2",
  "gpt2-scalar",
  "gpt2-untied",
  "opt-f16",
  "opt-untied",
  "opt-350m",
  "opt-350m-scalar",
  "llama-sharded",
  "llama-scalar",
  "mistral",
  "qwen2-bf16",
  "qwen2-scalar",
  "qwen3",
] as const;

export const fixtureDir = (name: string): string => join(packageRoot, "test/fixtures/models", name);

export const fixtureHead = (name: string): Head => (name.endsWith("scalar") ? "scalar" : "lm");

export const fixtureJson = (name: string, file: string): unknown =>
  JSON.parse(readFileSync(join(fixtureDir(name), file), "utf8"));
