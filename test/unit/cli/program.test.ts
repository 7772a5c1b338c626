/** The real program, started as a user starts it. */
import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { parseConfig } from "../../../src/config/load.js";
import { libraryFolder } from "../../../src/engine/onnx/package.js";
import { packageRoot } from "../../../src/shared/paths.js";
import { sleep } from "../../../src/shared/abort.js";

const folder = mkdtempSync(join(tmpdir(), "troupe-cli-"));
const good = join(folder, "good.yaml");
const bad = join(folder, "bad.yaml");
writeFileSync(good, "data: {path: rows.jsonl}\n");
writeFileSync(bad, "data: {path: rows.jsonl}\nppo: {lam: 2, gama: 1}\n");

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function start(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const child = spawn(process.execPath, [join(packageRoot, "bin", "troupe.mjs"), ...args], {
    cwd: folder,
    env: { ...process.env, NO_COLOR: "1", TROUPE_SKIP_BUILD: "1", ...env },
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (data: Buffer) => (stdout += String(data)));
  child.stderr.on("data", (data: Buffer) => (stderr += String(data)));
  const outcome = new Promise<Outcome>((resolve) =>
    child.on("close", (code) => resolve({ code, stdout, stderr })),
  );
  return { child, outcome, output: () => stdout + stderr };
}
const troupe = (args: readonly string[], env: NodeJS.ProcessEnv = {}) => start(args, env).outcome;

beforeAll(async () => {
  const build = spawn(process.execPath, [join(packageRoot, "scripts", "build.mjs")], { stdio: "inherit" });
  await new Promise((resolve) => build.on("exit", resolve));
});

describe("help and usage", () => {
  it("--help lists every command and ends with 0", async () => {
    const { code, stdout } = await troupe(["--help"]);
    expect(code).toBe(0);
    const commands = [
      "quickstart",
      "run",
      "sft",
      "reward",
      "ppo",
      "launch",
      "coordinator",
      "rollout",
      "learner",
      "status",
      "scale",
      "chat",
      "generate",
      "doctor",
      "config",
      "verify",
    ];
    for (const command of commands) expect(stdout).toMatch(new RegExp(`^ {2}${command}\\b`, "m"));
  });

  it("--version is the package's", async () => {
    const { version } = JSON.parse(readFileSync(join(packageRoot, "package.json"), "utf8")) as {
      version: string;
    };
    expect(await troupe(["--version"])).toMatchObject({ code: 0, stdout: `${version}\n` });
  });

  it.each([
    [["rnu", "x.yaml"], /unknown command 'rnu'[^]*Did you mean run/],
    [["run"], /missing required argument 'config'/],
    [["run", good, "--rolouts", "3"], /unknown option '--rolouts'[^]*Did you mean --rollouts/],
    [["run", good, "--rollouts", "-1"], /Expected a whole number from 0 to 4096/],
    [["run", good, "--resume", "yes"], /Allowed choices are auto/],
    [["coordinator", good], /required option '--run-dir <dir>' not specified/],
    [["rollout"], /required option '--coordinator <host:port>' not specified/],
    [["quickstart", "--preset", "huge"], /Allowed choices are quickstart, tiny/],
    [["generate", "--model", "x"], /nothing to answer/],
    [
      ["chat", "--model", "x", "--min-new-tokens", "9", "--max-new-tokens", "8"],
      /--min-new-tokens 9 is above --max-new-tokens 8/,
    ],
    [["generate", "--model", "x", "--repetition-penalty", "0"], /--repetition-penalty/],
    [["scale", "rollout=many", "--coordinator", "x:1"], /expected rollout=N or learner=N/],
    [["status"], /--coordinator HOST:PORT or --run-dir DIR/],
    [["launch", "--coordinator", "nowhere"], /expects HOST:PORT/],
    [["run", good, "--gpus", "0,0"], /names a device twice/],
    [
      ["run", good, "--gpus", "0", "--set", "engine.name=onnx"],
      /--gpus would do nothing: the onnx engine computes on the CPU/,
    ],
    [
      ["quickstart", "--gpus", "0", "--set", "engine.provider=webgpu"],
      /--gpus would do nothing: .* webgpu leaves the choice of the GPU to its driver/,
    ],
  ])("%j is a usage error: exit code 2", async (args, message) => {
    const { code, stderr } = await troupe(args);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });
});

describe("config", () => {
  it("validate lists every problem and exits with 2", async () => {
    const { code, stderr } = await troupe(["config", "validate", "bad.yaml"]);
    expect(code).toBe(2);
    expect(stderr).toContain("error: 2 problems in the configuration (bad.yaml):");
    expect(stderr).toContain("bad.yaml:2:7: ppo.lam: expected a number from 0 to 1, got 2");
    expect(stderr).toContain("did you mean ppo.gamma?");
    expect(stderr).not.toContain("    at "); // no stack without --debug
  });

  it("--debug shows the stack", async () => {
    const { code, stderr } = await troupe(["--debug", "config", "validate", "bad.yaml"]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^ {4}at /m);
  });

  it("print gives the complete config, from file, environment and --set", async () => {
    const { code, stdout } = await troupe(["config", "print", "good.yaml", "--set", "ppo.lam=0.5"], {
      TROUPE__SEED: "9",
    });
    expect(code).toBe(0);
    const { config } = parseConfig({ text: stdout });
    expect([config.ppo.lam, config.seed, config.data.path]).toEqual([0.5, 9, join(folder, "rows.jsonl")]);
  });

  it("schema and docs print what the repository holds", async () => {
    const [schema, docs] = await Promise.all([troupe(["config", "schema"]), troupe(["config", "docs"])]);
    expect((JSON.parse(schema.stdout) as { required: string[] }).required).toEqual(["data"]);
    expect(docs.stdout).toBe(readFileSync(join(packageRoot, "docs", "configuration.md"), "utf8"));
  });
});

describe("exit codes", () => {
  it("2 for a config that is wrong, before anything is written", async () => {
    const runDir = join(folder, "never");
    const { code } = await troupe(["run", "bad.yaml", "--run-dir", runDir]);
    expect([code, existsSync(runDir)]).toEqual([2, false]);
  });

  it("65 when the data set is missing, before any process is started", async () => {
    const runDir = join(folder, "no-data");
    const { code, stderr } = await troupe(["run", "good.yaml", "--run-dir", runDir]);
    expect(code).toBe(65);
    expect(stderr).toContain(`data.path ${join(folder, "rows.jsonl")} does not exist`);
    expect(existsSync(join(runDir, "logs"))).toBe(false);
  });

  it.skipIf(existsSync(join(libraryFolder(), "libonnxruntime_providers_cuda.so")))(
    "2 when the engine's native library is missing, with its name and what to do, before anything is written",
    async () => {
      const runDir = join(folder, "no-cuda");
      const asked = ["good.yaml", "--set", "engine.name=onnx", "--set", "engine.provider=cuda"];
      const run = await troupe(["run", ...asked, "--run-dir", runDir]);
      expect([run.code, existsSync(runDir)]).toEqual([2, false]);
      const doctor = await troupe(["doctor", "--config", ...asked]);
      expect(doctor.code).toBe(1);
      for (const text of [run.stderr, doctor.stdout]) {
        expect(text).toMatch(
          /engine\.provider cuda needs .*libonnxruntime_providers_cuda\.so in .*onnxruntime-node/,
        );
        expect(text).toMatch(
          /`node .*install\.js` fetches the libraries for CUDA 12; else choose `engine\.provider: cpu`/,
        );
      }
    },
  );

  it("73 when the run directory is in use, 2 when it holds a run already", async () => {
    const runDir = join(folder, "used");
    mkdirSync(runDir);
    writeFileSync(join(runDir, "launcher.lock"), JSON.stringify({ pid: process.pid, started: null }));
    const inUse = await troupe(["run", "good.yaml", "--run-dir", runDir]);
    expect([inUse.code, inUse.stderr.includes(`pid ${process.pid}`)]).toEqual([73, true]);
    writeFileSync(join(runDir, "launcher.lock"), "");
    writeFileSync(join(runDir, "config.yaml"), "data: {path: x}\n");
    const exists = await troupe(["run", "good.yaml", "--run-dir", runDir]);
    expect([exists.code, exists.stderr.includes("--resume auto")]).toEqual([2, true]);
  });

  it("65 for a model folder that is none", async () => {
    const { code, stderr } = await troupe(["chat", "--model", folder]);
    expect([code, stderr.includes("has no config.json")]).toEqual([65, true]);
  });

  it("69 when there is no coordinator", async () => {
    const { code, stderr } = await troupe(["status", "--coordinator", "127.0.0.1:1"]);
    expect([code, stderr.includes("127.0.0.1:1")]).toEqual([69, true]);
  });

  it("1 from doctor when a port is taken, 0 when all is well", async () => {
    const server = createServer();
    const port = await new Promise<number>((resolve) =>
      server.listen(0, "127.0.0.1", () => resolve((server.address() as { port: number }).port)),
    );
    const taken = await troupe(["doctor", "--port", String(port), "--config", "good.yaml"]);
    server.close();
    expect(taken.stdout).toMatch(new RegExp(`^FAIL {2}port +${port} cannot be listened on`, "m"));
    expect(taken.stdout).toMatch(/^ok {4}model +\d+\.\d M parameters$/m);
    expect(taken.code).toBe(1);
  });
});

describe("launch --gpus", () => {
  it.runIf(existsSync("/proc/self/environ"))(
    "starts each worker with a GPU of its own: rollouts from the front of the list, learners from its end",
    async () => {
      const args = ["--coordinator", "127.0.0.1:1", "--rollouts", "2", "--learners", "1", "--gpus", "4,5,6"];
      const launched = start(["launch", ...args, "--log-dir", "gpu-logs"], { CUDA_VISIBLE_DEVICES: "0" });
      const pids = () => [...launched.output().matchAll(/(\S+-\d) +started, pid (\d+)/g)];
      while (pids().length < 3) await sleep(20);
      const visible = pids().map(([, name, pid]) => {
        const environment = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0");
        return [name, environment.filter((entry) => entry.startsWith("CUDA_VISIBLE_DEVICES="))];
      });
      launched.child.kill("SIGTERM");
      const { stderr } = await launched.outcome;
      expect(stderr).not.toContain("share");
      expect(Object.fromEntries(visible)).toEqual({
        "rollout-0": ["CUDA_VISIBLE_DEVICES=4"],
        "rollout-1": ["CUDA_VISIBLE_DEVICES=5"],
        "learner-0": ["CUDA_VISIBLE_DEVICES=6"],
      });
    },
  );

  it("notes that workers share a GPU when there are fewer", async () => {
    const args = ["--coordinator", "127.0.0.1:1", "--rollouts", "2", "--learners", "1", "--gpus", "4,5"];
    const launched = start(["launch", ...args, "--log-dir", "shared-gpu-logs"]);
    while (!launched.output().includes("started, pid")) await sleep(20);
    launched.child.kill("SIGTERM");
    const { stderr } = await launched.outcome;
    expect(stderr).toContain("note: 3 workers (2 rollouts, 1 learners) share 2 GPUs of --gpus");
  });
});

describe("ending", () => {
  const waitFor = async (worker: ReturnType<typeof start>, text: string) => {
    while (!worker.output().includes(text)) await sleep(20);
  };
  const worker = (env: NodeJS.ProcessEnv = {}) => start(["rollout", "--coordinator", "127.0.0.1:1"], env);

  it("a worker ends with 0 on SIGTERM", async () => {
    const running = worker();
    await waitFor(running, "worker started");
    running.child.kill("SIGTERM");
    expect((await running.outcome).code).toBe(0);
  });

  it("a worker of a launcher ignores Ctrl-C, which is the launcher's to handle, and ends when the launcher is gone", async () => {
    const running = worker({ TROUPE_PARENT_PIPE: "1" });
    await waitFor(running, "worker started");
    running.child.kill("SIGINT");
    await sleep(300);
    expect(running.child.exitCode).toBeNull();
    running.child.stdin.end(); // what the kernel does when the launcher dies
    expect((await running.outcome).code).not.toBeNull();
  });
});
