// Transpiles src/ and examples/ to dist/ (ESM, one file in, one file out) with esbuild. Types are checked by `npm run
// check`; this step only makes the program runnable, so it takes a fraction of a second and runs
// by itself from bin/troupe.mjs whenever a source file is newer than the last build.
import { build } from "esbuild";
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync, renameSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const stamp = join(root, "dist", ".stamp");

function sources(dir) {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) return sources(path);
    return entry.name.endsWith(".ts") && !entry.name.endsWith(".d.ts") ? [path] : [];
  });
}

/** Builds when `force` is set or any source is newer than the last build. */
export async function buildIfStale({ force = false } = {}) {
  if (!existsSync(join(root, "src"))) return; // an installed package ships dist/ only
  const files = ["src", "examples"]
    .map((d) => join(root, d))
    .filter(existsSync)
    .flatMap(sources);
  const builtAtMs = existsSync(stamp) ? statSync(stamp).mtimeMs : 0;
  const isStale = force || files.some((file) => statSync(file).mtimeMs > builtAtMs);
  if (!isStale) return;
  const startedAt = new Date();
  if (force) rmSync(join(root, "dist"), { recursive: true, force: true });
  mkdirSync(join(root, "dist"), { recursive: true });
  await build({
    absWorkingDir: root,
    entryPoints: files,
    outdir: join(root, "dist"),
    outbase: root,
    bundle: false,
    format: "esm",
    platform: "node",
    target: "node20",
    sourcemap: "linked",
    logLevel: "warning",
  });
  // Written last and renamed, so an interrupted build never looks finished.
  writeFileSync(`${stamp}.tmp`, startedAt.toISOString());
  renameSync(`${stamp}.tmp`, stamp);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await buildIfStale({ force: process.argv.includes("--force") });
}
