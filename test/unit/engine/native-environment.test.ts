import { execFileSync } from "node:child_process";
import { pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import koffi from "koffi";
import { beforeAll, describe, expect, it } from "vitest";
import { builtFile, packageRoot } from "../../../src/shared/paths.js";

describe.skipIf(process.platform === "win32")("setNativeDefaults", () => {
  beforeAll(() => {
    execFileSync(process.execPath, ["scripts/build.mjs"], { cwd: packageRoot });
  });

  /** What a native library of this process reads. */
  const native = (name: string) =>
    koffi.load(null).func("const char *getenv(const char *name)")(name) as string | null;

  it("reaches native libraries from a worker thread, whose own process.env does not", async () => {
    process.env.TROUPE_TEST_SET_BEFORE = "kept";
    const module = pathToFileURL(builtFile("src/engine/eager/native-environment")).href;
    const code = `
      process.env.TROUPE_TEST_PLAIN = "1";
      import(${JSON.stringify(module)}).then(({ setNativeDefaults }) => {
        setNativeDefaults({ TROUPE_TEST_DEFAULT: "7", TROUPE_TEST_SET_BEFORE: "lost" });
        require("node:worker_threads").parentPort.postMessage(process.env.TROUPE_TEST_DEFAULT);
      });`;
    const seenInside = await new Promise((resolve, reject) => {
      new Worker(code, { eval: true }).once("message", resolve).once("error", reject);
    });
    expect(seenInside).toBe("7");
    expect(native("TROUPE_TEST_PLAIN")).toBeNull();
    expect(native("TROUPE_TEST_DEFAULT")).toBe("7");
    expect(native("TROUPE_TEST_SET_BEFORE")).toBe("kept");
  });

  it("reaches them from the main thread of a process, and keeps what is set", () => {
    const read = `import(${JSON.stringify(pathToFileURL(builtFile("src/engine/eager/native-environment")).href)}).then(
      ({ setNativeDefaults }) => {
        setNativeDefaults({ TROUPE_TEST_A: "1", TROUPE_TEST_B: "2" });
        const getenv = require("koffi").load(null).func("const char *getenv(const char *name)");
        console.log(getenv("TROUPE_TEST_A"), getenv("TROUPE_TEST_B"));
      });`;
    const env = { ...process.env, TROUPE_TEST_B: "mine" };
    const output = execFileSync(process.execPath, ["-e", read], { cwd: packageRoot, env, encoding: "utf8" });
    expect(output.trim()).toBe("1 mine");
  });
});
