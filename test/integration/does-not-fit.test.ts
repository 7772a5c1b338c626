/** Workers on a machine that cannot hold them are told so before they load anything. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { estimateMemory } from "../../src/cli/memory-estimate.js";
import { loadConfig } from "../../src/config/load.js";
import { readCoordinatorFile } from "../../src/shared/coordinator-file.js";
import { ControlClient } from "../../src/rpc/control-client.js";
import { sleep } from "../../src/shared/abort.js";
import { EXIT_CODES } from "../../src/shared/errors.js";
import { machineMemory } from "../../src/shared/machine-memory.js";
import { packageRoot } from "../../src/shared/paths.js";
import { PATIENCE_MS, RunFolder } from "../helpers/tiny-run.js";

const inputs = new RunFolder();
const children: ChildProcess[] = [];

function troupe(...args: string[]) {
  const child = spawn(process.execPath, [join(packageRoot, "bin", "troupe.mjs"), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, NO_COLOR: "1" },
  });
  children.push(child);
  const said = { text: "" };
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => void (said.text += chunk.toString()));
  return { child, said, ended: once(child, "exit") };
}

afterAll(async () => {
  for (const child of children) child.kill("SIGKILL");
  await inputs.remove();
});

/** Fields of a model of which this machine holds one learner, but not two. */
async function modelForOneLearner(file: string): Promise<string[]> {
  const { usableBytes } = machineMemory();
  for (let layers = 1; layers <= 1024; layers = Math.ceil(layers * 1.1)) {
    const fields = [
      "stages=[sft]",
      "model.fresh.hidden=1024",
      `model.fresh.layers=${layers}`,
      "cluster.learners=0",
    ];
    const { config } = await loadConfig({ file, sets: fields });
    const learner = (await estimateMemory(config)).processes.find(({ role }) => role === "learner")!;
    if (2 * learner.bytes > usableBytes) return fields;
  }
  throw new Error(`no model of up to 1024 layers is too large for two learners in ${usableBytes} bytes`);
}

it(
  "launch ends with the refusal and its exit code, and nobody has joined",
  { timeout: PATIENCE_MS },
  async () => {
    const config = await inputs.configPath();
    const runDir = join(inputs.path, "run");
    const fields = await modelForOneLearner(config);
    const coordinator = troupe(
      ...["coordinator", config, "--run-dir", runDir, "--port", "0", "--http-port", "0"],
      ...fields.flatMap((field) => ["--set", field]),
    );
    const announced = () => readCoordinatorFile(runDir);
    while ((await announced()) === undefined && coordinator.child.exitCode === null) await sleep(50);
    const address = (await announced())?.grpcAddress;
    expect(address, coordinator.said.text).toBeDefined();

    const logs = join(inputs.path, "worker-logs");
    const launch = troupe(
      "launch",
      "--coordinator",
      address!,
      "--learners",
      "2",
      "--rollouts",
      "0",
      "--log-dir",
      logs,
    );
    expect(await launch.ended).toEqual([EXIT_CODES.CONFIG, null]);
    expect(launch.said.text).toMatch(
      /error: .*the workers started on \S+ do not fit it: 2 learners of .* need about .* GiB, and it has .* GiB\. Lower the learners there \(2; results stay the same\), .*engine\.recompute: layers/,
    );
    const control = new ControlClient(address!);
    const { workers } = await control.status();
    control.close();
    expect(workers).toEqual([]);

    coordinator.child.kill("SIGTERM");
    expect(await coordinator.ended, coordinator.said.text).toEqual([0, null]);
  },
);
