import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, it } from "vitest";
import { builtFile, packageRoot } from "../../../src/shared/paths.js";

it("a process ends whose compute thread is stuck in native code", { timeout: 60_000 }, async () => {
  execFileSync(process.execPath, ["scripts/build.mjs"], { cwd: packageRoot }); // threads run the compiled form
  const folder = mkdtempSync(join(tmpdir(), "troupe-stuck-"));
  try {
    const pipe = join(folder, "pipe");
    execFileSync("mkfifo", [pipe]);
    writeFileSync(join(folder, "package.json"), '{"type":"module"}');
    // Opening a pipe that nobody writes to never returns, and a thread in a system call cannot be terminated.
    writeFileSync(
      join(folder, "stuck.js"),
      'import { openSync } from "node:fs"; export const open = (path) => openSync(path, "r");',
    );
    const stuck = relative(join(packageRoot, "dist"), join(folder, "stuck"));
    writeFileSync(
      join(folder, "main.js"),
      `import { ComputePool } from ${JSON.stringify(pathToFileURL(builtFile("src/worker/compute-pool")).href)};
       const pool = new ComputePool(${JSON.stringify(stuck)});
       pool.run("open", ${JSON.stringify(pipe)}).catch(() => undefined);
       await new Promise((resolve) => setTimeout(resolve, 1_000));
       await pool.close(200);
       process.exit(0);`,
    );
    const child = spawn(process.execPath, [join(folder, "main.js")], { stdio: ["ignore", "ignore", "pipe"] });
    let said = "";
    child.stderr.on("data", (text: Buffer) => (said += text.toString()));
    const signal = await new Promise((resolve) => child.once("close", (_code, by) => resolve(by)));
    expect({ signal, said }).toEqual({
      signal: "SIGKILL",
      said: expect.stringMatching(/does not end/) as string,
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
