import { dirname, join } from "node:path";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** The folder of package.json, found from this file wherever it runs: src/ under a test runner, dist/src/ otherwise. */
export const packageRoot: string = (() => {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json"))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error("package.json not found above " + import.meta.url);
    folder = parent;
  }
  return folder;
})();

/**
 * The compiled entry file of a thread or child process, e.g. `builtFile("src/learner/learner-compute")`.
 * Threads always run the compiled form, so a test that starts them needs a build first (`npm test` does it).
 */
export function builtFile(modulePath: string): string {
  return join(packageRoot, "dist", `${modulePath}.js`);
}

/** This release, from package.json. */
export const packageVersion: string = (
  JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as { version: string }
).version;
