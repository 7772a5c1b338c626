/** `launch` with small real programs in place of coordinator and workers. */
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parseConfig } from "../../../src/config/load.js";
import type { Control } from "../../../src/launcher/control.js";
import { launch, type LaunchOptions } from "../../../src/launcher/launch.js";
import { ProgressView } from "../../../src/launcher/progress-view.js";
import { openRunDirectory } from "../../../src/launcher/run-directory.js";
import { runCommand } from "../../../src/launcher/run-commands.js";
import type { ProgressEvent } from "../../../src/observability/progress.js";
import { sleep } from "../../../src/shared/abort.js";
import { TroupeError } from "../../../src/shared/errors.js";

const { config } = parseConfig({ text: "data: {path: /rows.jsonl}\ncluster: {rollouts: 2, learners: 1}\n" });

/** Announces itself as a coordinator does, then runs `then`. */
const coordinatorProgram = (dir: string, then: string) => `
  const fs = require("fs");
  const finish = () => { fs.writeFileSync(${JSON.stringify(join(dir, "summary.json"))}, "{}"); process.exit(0); };
  fs.writeFileSync(${JSON.stringify(join(dir, "coordinator.json.tmp"))}, JSON.stringify({ pid: process.pid, grpcAddress: "127.0.0.1:9", httpAddress: "http://127.0.0.1:10", runId: "r", startedAt: "" }));
  fs.renameSync(${JSON.stringify(join(dir, "coordinator.json.tmp"))}, ${JSON.stringify(join(dir, "coordinator.json"))});
  process.on("SIGTERM", () => process.exit(0));
  ${then}; setInterval(() => {}, 1000);`;
const WORKER = `process.on("SIGTERM", () => process.exit(0)); setInterval(() => {}, 1000)`;

class FakeControl implements Control {
  desired: Record<string, number> = {};
  watches = 0;
  constructor(readonly events: readonly ProgressEvent[] = []) {}
  status = async () => ({ stage: "ppo", desired: this.desired });
  close = () => undefined;
  async *watch(signal: AbortSignal): AsyncIterable<ProgressEvent> {
    this.watches++;
    yield* this.events;
    if (this.watches === 1) throw new Error("the stream broke");
    while (!signal.aborted) await sleep(20, signal);
  }
}

async function start(
  program: (dir: string) => string,
  overrides: Partial<LaunchOptions> = {},
  control = new FakeControl(),
  prepare = (_dir: string) => {},
) {
  const dir = join(mkdtempSync(join(tmpdir(), "troupe-launch-")), "run");
  const directory = await openRunDirectory(dir, { config });
  prepare(dir);
  const written: string[] = [];
  const stop = new AbortController();
  const running = launch({
    config,
    directory,
    view: new ProgressView({ stream: { write: (text) => written.push(text) }, env: {} }),
    signal: stop.signal,
    connect: async () => control,
    policy: { baseDelayMs: 5, maxDelayMs: 20, leaveDelayMs: 20 },
    patienceMs: 50,
    commandFor: (role, index, restarts) => ({
      name: `${role}-${index}`,
      file: process.execPath,
      args: ["-e", role === "coordinator" ? program(dir) : WORKER, String(restarts)],
      env: { PATH: process.env.PATH },
      logPath: join(directory.logDir, `${role}-${index}.log`),
    }),
    ...overrides,
  });
  const outcome = running.then(
    () => undefined,
    (error: unknown) => error as TroupeError,
  );
  const output = () => written.join("");
  const until = async (text: string) => {
    while (!output().includes(text)) await sleep(10);
  };
  return { dir, directory, stop, outcome, output, until, control };
}

describe("launch", () => {
  it("starts the workers once the coordinator listens, and ends when it is done", async () => {
    const run = await start((dir) => coordinatorProgram(dir, "setTimeout(finish, 800)"));
    expect(await run.outcome).toBeUndefined();
    const lines = run.output().split("\n");
    const at = (text: string) => lines.findIndex((line) => line.includes(text));
    expect(at("coordinator-0")).toBeLessThan(at("http://127.0.0.1:10"));
    for (const worker of ["learner-0", "rollout-0", "rollout-1"])
      expect(at(worker)).toBeGreaterThan(at("http://127.0.0.1:10"));
    expect(run.output()).not.toContain("restart");
  });

  it("does not take coordinator.json and summary.json of an earlier start for this one's", async () => {
    const leaveTraces = (dir: string) => {
      const old = { pid: 1, grpcAddress: "old:1", httpAddress: "old:2", runId: "r" };
      writeFileSync(join(dir, "coordinator.json"), JSON.stringify(old));
      writeFileSync(join(dir, "summary.json"), "{}");
    };
    // Leaves politely at first; were the old summary still there, the run would count as done.
    const program = (dir: string) =>
      coordinatorProgram(dir, `process.argv[1] === "0" ? process.exit(0) : setTimeout(finish, 300)`);
    const run = await start(program, {}, undefined, leaveTraces);
    expect(await run.outcome).toBeUndefined();
    expect(run.output()).not.toContain("old:2");
    expect(run.output()).toContain("coordinator-0  restarted (1)");
  });

  it("Ctrl-C stops every process and says how it ended", async () => {
    const run = await start((dir) => coordinatorProgram(dir, ""));
    await run.until("rollout-1");
    run.stop.abort(new TroupeError("CANCELLED", "stopped by SIGINT"));
    expect(await run.outcome).toMatchObject({ code: "CANCELLED", message: "stopped by SIGINT" });
    for (const name of ["coordinator-0", "learner-0", "rollout-0", "rollout-1"])
      expect(run.output()).toMatch(new RegExp(`${name} +stopped`));
  });

  it("a fatal coordinator ends the run with its code and its last words", async () => {
    const run = await start(() => `console.error("bad model"); process.exit(65)`);
    const error = await run.outcome;
    expect(error?.code).toBe("DATA");
    expect(error?.message).toContain("| bad model");
  });

  it("what a fatal coordinator said is the message, without the trace it logged before", async () => {
    const run = await start(
      () => `console.log("    at f (x.js)"); console.error("error: no such file"); process.exit(65)`,
    );
    const error = await run.outcome;
    expect(error?.message).toMatch(
      /^no such file\n {2}\(coordinator-0, exit code 65 \(bad data or model\); log: .*\.log\)$/,
    );
  });

  it("a coordinator that takes long to listen is noted, and waited for while it lives", async () => {
    const run = await start((dir) => `setTimeout(() => { ${coordinatorProgram(dir, "finish()")} }, 400)`, {
      listen: { timeoutMs: 60_000, noteMs: 100 },
    });
    expect(await run.outcome).toBeUndefined();
    expect(run.output()).toMatch(
      /the coordinator does not listen yet, after \d+ s; it writes to .*coordinator-0\.log/,
    );
  });

  it("a coordinator that never listens ends the run, with where to look", async () => {
    const run = await start(() => WORKER, { listen: { timeoutMs: 200, noteMs: 60_000 } });
    const error = await run.outcome;
    expect(error?.code).toBe("UNREACHABLE");
    expect(error?.message).toMatch(/did not listen within 0\.2 s; see .*coordinator-0\.log/);
    expect(run.output()).toMatch(/coordinator-0 +stopped/);
  });

  it("starts and stops workers as the coordinator wants", async () => {
    const run = await start((dir) => coordinatorProgram(dir, ""));
    await run.until("rollout-1");
    run.control.desired = { rollout: 1, learner: 2 };
    await run.until("learner-1");
    while (!/rollout-1 +stopped/.test(run.output())) await sleep(10);
    run.stop.abort();
    await run.outcome;
  });

  it("shows each progress event once, though the stream broke and began again", async () => {
    const event = {
      type: "message",
      level: "info",
      text: "hello from the run",
      sequence: 1,
      timeMs: 5,
    } as const;
    const run = await start(
      (dir) => coordinatorProgram(dir, "setTimeout(finish, 1500)"),
      {},
      new FakeControl([event]),
    );
    await run.outcome;
    expect(run.control.watches).toBeGreaterThan(1);
    expect(run.output().split("hello from the run")).toHaveLength(2);
  });
});

describe("command lines", () => {
  const options = {
    logDir: "/logs",
    tokenFile: "/token",
    gpus: [4, 5],
    coordinatorAddress: () => "127.0.0.1:9",
    coordinatorArgs: (restarts: number) => ["config.yaml", ...(restarts > 0 ? ["--resume", "auto"] : [])],
    env: { PATH: "/bin", TROUPE__SEED: "3" },
  };

  it("give each worker its name, the address, the token and a GPU", () => {
    const rollout = runCommand(options, "rollout", 1, 0);
    expect(rollout.args.slice(1)).toEqual([
      "rollout",
      "--coordinator",
      "127.0.0.1:9",
      "--worker-id",
      "rollout-1",
      "--log-dir",
      "/logs",
      "--token-file",
      "/token",
    ]);
    expect(runCommand({ ...options, insecure: true }, "rollout", 1, 0).args).toContain("--insecure");
    expect(rollout.env.CUDA_VISIBLE_DEVICES).toBe("5");
    expect(runCommand(options, "learner", 0, 0).env.CUDA_VISIBLE_DEVICES).toBe("5");
    expect(runCommand(options, "rollout", 2, 0).env.CUDA_VISIBLE_DEVICES).toBe("4");
    expect(rollout.logPath).toBe(join("/logs", "rollout-1.log"));
  });

  it("keep config variables away from the children: the file they get holds them already", () => {
    const { env, args } = runCommand(options, "coordinator", 0, 1);
    expect(env).toEqual({ PATH: "/bin", TROUPE_SKIP_BUILD: "1" });
    expect(args.slice(1)).toEqual(["coordinator", "config.yaml", "--resume", "auto"]);
    expect(existsSync(args[0]) && readFileSync(args[0], "utf8").startsWith("#!")).toBe(true);
  });
});
