import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { pathToFileURL } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";
import { parseConfig } from "../../../src/config/load.js";
import {
  chooseEngine,
  engineOf,
  requireEngineLibrary,
  tensorflowLibraryPath,
} from "../../../src/engine/choice.js";
import { createEngine, type CreatedEngine } from "../../../src/engine/create-engine.js";
import { requireCudaProvider } from "../../../src/engine/onnx/cuda-provider.js";
import { TroupeError } from "../../../src/shared/errors.js";
import { builtFile, packageRoot } from "../../../src/shared/paths.js";
import { engineSettings } from "../../../src/worker/engine-settings.js";

const cuda = { hasCudaDevice: true, hasTensorflowLibrary: true };

describe("engine auto", () => {
  it("is onnx without a CUDA device", () => {
    expect(chooseEngine({}, { hasCudaDevice: false, hasTensorflowLibrary: true }).name).toBe("onnx");
  });

  it("is tensorflow with a CUDA device and the native library", () => {
    expect(chooseEngine({}, cuda).name).toBe("tensorflow");
    expect(chooseEngine({ provider: "cpu", recompute: "none", frozenWeights: "f32" }, cuda).name).toBe(
      "tensorflow",
    );
  });

  it.each([
    { provider: "webgpu" },
    { provider: "cuda" },
    { recompute: "layers" },
    { frozenWeights: "int8" },
  ] as const)("is onnx, and says why, where a setting is one of onnx alone: %j", async (needs) => {
    const [[field, value]] = Object.entries(needs);
    const reason = `auto: engine.${field} ${value} is a setting of the onnx engine`;
    expect(chooseEngine(needs, cuda)).toEqual({ name: "onnx", reason });
    if ("provider" in needs) return; // needs what this machine may not have
    const created = await createEngine({ ...needs }, () => cuda);
    expect(created).toMatchObject({ engine: { name: "onnx" }, reason });
    await created.engine.dispose();
    const { config } = parseConfig({ text: `data: {path: x}\nengine: {${field}: ${value}}`, file: "test" });
    expect(engineOf(config.engine, cuda)).toBe("onnx");
    expect(engineSettings(config)).toMatchObject(needs);
  });

  it("is onnx, and says how to get tensorflow, when only the library is missing", () => {
    const choice = chooseEngine({}, { hasCudaDevice: true, hasTensorflowLibrary: false });
    expect(choice.name).toBe("onnx");
    expect(choice.reason).toContain("npm run setup:gpu");
  });
});

describe("native libraries, asked for before anything starts", () => {
  const facts = { hasCudaDevice: true, hasTensorflowLibrary: false };

  it("tensorflow without its library is refused by name; onnx on the CPU needs nothing more", () => {
    const rest = { provider: "cpu", recompute: "none", frozenWeights: "f32" } as const;
    expect(() => requireEngineLibrary({ name: "tensorflow", ...rest }, facts)).toThrow(
      /needs the native library of @tensorflow\/tfjs-node-gpu.*run `npm run setup:gpu`/,
    );
    for (const name of ["auto", "onnx"] as const) requireEngineLibrary({ name, ...rest }, facts);
  });

  it("CUDA is refused for each of its libraries that is missing, and for a platform without any", () => {
    const folder = mkdtempSync(join(tmpdir(), "troupe-cuda-"));
    const attempt = (platform = "linux x64") => expect(() => requireCudaProvider(folder, platform));
    attempt().toThrow(
      "needs libonnxruntime_providers_shared.so and libonnxruntime_providers_cuda.so in " + folder,
    );
    writeFileSync(join(folder, "libonnxruntime_providers_shared.so"), "");
    attempt().toThrow("needs libonnxruntime_providers_cuda.so in " + folder);
    writeFileSync(join(folder, "libonnxruntime_providers_cuda.so"), "");
    attempt().not.toThrow();
    attempt("darwin arm64").toThrow(/none for darwin arm64; choose `engine\.provider: cpu`/);
  });
});

describe("createEngine", () => {
  it("names its threads, library and reason", async () => {
    const { engine, reason } = await createEngine({ name: "onnx", threads: 2 });
    expect(engine.description).toMatch(/^onnx: ONNX Runtime \d+\.\d+\.\d+ \(C API\), cpu, 2 threads$/);
    expect(reason).toBe("asked for by name");
    await engine.dispose();
  });

  it.runIf(tensorflowLibraryPath() === null)(
    "fails with one clear error when tensorflow's native library is missing",
    async () => {
      await expect(createEngine({ name: "tensorflow" })).rejects.toMatchObject({
        code: "CONFIG",
        message: expect.stringContaining("npm run setup:gpu") as string,
      });
    },
  );

  it("a GPU provider without a GPU says what it needs, in one line without the library's own sources", async () => {
    const outcome = await createEngine({ name: "onnx", provider: "webgpu" }).catch((error: unknown) => error);
    if (!(outcome instanceof TroupeError)) return (outcome as CreatedEngine).engine.dispose(); // here is one
    expect(outcome.code).toBe("CONFIG");
    expect(outcome.message).toMatch(/^engine\.provider webgpu does not work here \(.+\): it needs a Vulkan/);
    expect(outcome.message).not.toMatch(/\.cc:|\n/);
  });
});

describe("in a worker thread", () => {
  beforeAll(() => {
    execFileSync(process.execPath, ["scripts/build.mjs"], { cwd: packageRoot });
    expect(existsSync(builtFile("src/engine/create-engine"))).toBe(true);
  });

  it("two threads run the onnx engine at once, across garbage collections", async () => {
    const url = (path: string) => JSON.stringify(pathToFileURL(builtFile(path)).href);
    const code = `
      const { parentPort } = require("node:worker_threads");
      (async () => {
        const { createEngine } = await import(${url("src/engine/create-engine")});
        const { makeLayout } = await import(${url("src/engine/layout")});
        const tf = await import("@tensorflow/tfjs");
        const { engine } = await createEngine({ name: "onnx" });
        const layout = makeLayout({ w: [64, 64] });
        const arena = engine.createArena(layout);
        const executable = await engine.compile({
          key: "count", arenas: { a: { layout, access: "update" } }, inputs: { x: { shape: [64], dtype: "float32" } },
          body: ({ a }, { x }) => ({ outputs: {}, updates: { a: { w: tf.add(a.w, x) } } }),
        });
        for (let i = 0; i < 200; i++) {
          if (i % 20 === 0) globalThis.gc();
          await executable.run({ a: arena }, { x: new Float32Array(64).fill(1) });
        }
        const values = await arena.read();
        parentPort.postMessage({ description: engine.description, isRight: values.every((v) => v === 200) });
      })();`;
    const run = () =>
      new Promise<{ description: string; isRight: boolean }>((resolve, reject) => {
        // The worker's own heap must expose gc; tfjs resolves from the package's folder.
        const worker = new Worker(
          `require("node:v8").setFlagsFromString("--expose-gc");
          globalThis.gc = require("node:vm").runInNewContext("gc"); process.chdir = () => {}; ${code}`,
          {
            eval: true,
          },
        );
        worker.once("message", resolve).once("error", reject);
      });
    const results = await Promise.all([run(), run()]);
    for (const { description, isRight } of results) {
      expect(description).toContain("C API");
      expect(isRight).toBe(true);
    }
  });
});
