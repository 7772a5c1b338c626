#!/usr/bin/env node
// From a source checkout the sources are compiled first when they changed (a fraction of a second).
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const buildScript = new URL("../scripts/build.mjs", import.meta.url);
if (!process.env.TROUPE_SKIP_BUILD && existsSync(fileURLToPath(buildScript))) {
  const { buildIfStale } = await import(buildScript.href);
  await buildIfStale();
}
await import(new URL("../dist/src/cli/main.js", import.meta.url).href);
