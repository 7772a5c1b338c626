/** The processes that direct a run answer heartbeats: nothing that computes belongs into them. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { readCoordinatorFile } from "../../../src/shared/coordinator-file.js";
import { ControlClient } from "../../../src/rpc/control-client.js";
import { sleep } from "../../../src/shared/abort.js";
import { packageRoot } from "../../../src/shared/paths.js";
import { ModuleTrace } from "../../helpers/module-trace.js";
import { PATIENCE_MS, RunFolder } from "../../helpers/tiny-run.js";

const TENSOR_LIBRARY = /node_modules\/(@tensorflow|onnxruntime-|koffi|@koromix)/;
const inputs = new RunFolder();
const trace = new ModuleTrace(inputs.path);
let child: ChildProcess | undefined;

function start(args: readonly string[]): ChildProcess {
  child = spawn(process.execPath, args, {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, ...trace.env },
  });
  return child;
}

afterAll(async () => {
  child?.kill("SIGKILL");
  await inputs.remove();
});

describe("troupe coordinator", () => {
  it("loads no tensor library, from its start to its run's", { timeout: PATIENCE_MS }, async () => {
    const runDir = join(inputs.path, "run");
    const bin = join(packageRoot, "bin", "troupe.mjs");
    const coordinator = start([
      ...[bin, "coordinator", await inputs.configPath(), "--run-dir", runDir],
      ...["--port", "0", "--http-port", "0"],
    ]);
    const ended = once(coordinator, "exit");
    let said = "";
    coordinator.stderr!.on("data", (chunk: Buffer) => void (said += chunk.toString()));
    // A stage begins once tokenizer and data are read: then it waits for learners.
    const isWaiting = async () => {
      const file = await readCoordinatorFile(runDir);
      if (file === undefined) return false;
      const control = new ControlClient(file.grpcAddress);
      const status = await control.status().catch(() => undefined);
      control.close();
      return status?.stage === "sft";
    };
    while (coordinator.exitCode === null && !(await isWaiting())) await sleep(50);
    coordinator.kill("SIGTERM");
    expect(await ended, said).toEqual([0, null]);
    const modules = trace.of(coordinator.pid!);
    for (const needed of [/cli\/memory-estimate\.js$/, /coordinator\/run-coordinator\.js$/, /@grpc\/grpc-js/])
      expect(modules.some((module) => needed.test(module))).toBe(true);
    expect(modules.filter((module) => TENSOR_LIBRARY.test(module))).toEqual([]);
  });

  it("would be caught loading one: a process that makes an engine is", { timeout: PATIENCE_MS }, async () => {
    const engine = pathToFileURL(join(packageRoot, "dist", "src", "engine", "create-engine.js")).href;
    const script = `import(${JSON.stringify(engine)}).then(({ createEngine }) => createEngine({ name: "onnx" }))`;
    const other = start(["--eval", script]);
    await once(other, "exit");
    const modules = trace.of(other.pid!);
    expect(modules.some((module) => /@tensorflow\/tfjs/.test(module))).toBe(true);
    // Also what no import names: packages that packages require, native ones too.
    expect(modules.some((module) => TENSOR_LIBRARY.test(module) && module.endsWith(".node"))).toBe(true);
  });
});
