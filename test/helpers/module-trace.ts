/** Which modules the main thread of a process of ours loads, whether imported or required, native ones included. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** Resolved imports are appended as they happen; what was required follows when the process ends. */
const PRELOAD = `
import { appendFileSync } from "node:fs";
import { createRequire, register } from "node:module";
import { isMainThread } from "node:worker_threads";

if (isMainThread) {
  const file = process.env.MODULE_TRACE + "." + process.pid;
  const hooks = \`
    import { appendFileSync } from "node:fs";
    let file;
    export const initialize = (data) => void (file = data);
    export async function resolve(specifier, context, next) {
      const resolved = await next(specifier, context);
      appendFileSync(file, resolved.url + "\\\\n");
      return resolved;
    }\`;
  register("data:text/javascript," + encodeURIComponent(hooks), { data: file });
  process.on("exit", () => {
    appendFileSync(file, Object.keys(createRequire(import.meta.url).cache).join("\\n") + "\\n");
  });
}
`;

export class ModuleTrace {
  readonly env: NodeJS.ProcessEnv;
  private readonly file: string;

  constructor(folder: string) {
    this.file = join(folder, "modules");
    const preload = join(folder, "module-trace.mjs");
    writeFileSync(preload, PRELOAD);
    this.env = { MODULE_TRACE: this.file, NODE_OPTIONS: `--import=${pathToFileURL(preload).href}` };
  }

  /** URLs and paths, once the process has ended. */
  of(pid: number): string[] {
    return readFileSync(`${this.file}.${pid}`, "utf8").trim().split("\n");
  }
}
