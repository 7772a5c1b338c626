/** The supervisor with small real programs as children. */
import { mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { sleep } from "../../../src/shared/abort.js";
import type { TroupeError } from "../../../src/shared/errors.js";
import { EXIT_CODES } from "../../../src/shared/errors.js";
import {
  Supervisor,
  type SupervisorEvent,
  type SupervisorOptions,
} from "../../../src/launcher/supervisor.js";
import type { ProcessRole } from "../../../src/shared/roles.js";

const FOREVER = "setInterval(() => {}, 1000)";
const QUICK = { baseDelayMs: 5, maxDelayMs: 20, leaveDelayMs: 20 };

let running: Supervisor | undefined;
afterEach(async () => {
  await running?.stop({ graceMs: 2_000 });
  running = undefined;
});

/** A supervisor whose children run the given JavaScript; `code` may look at the restart count. */
function start(
  code: (role: ProcessRole, index: number, restarts: number) => string,
  options: Partial<SupervisorOptions> = {},
) {
  const folder = mkdtempSync(join(tmpdir(), "troupe-supervisor-"));
  const events: SupervisorEvent[] = [];
  const supervisor = new Supervisor({
    commandFor: (role, index, restarts) => ({
      name: `${role}-${index}`,
      file: process.execPath,
      args: ["-e", code(role, index, restarts)],
      env: { PATH: process.env.PATH },
      logPath: join(folder, `${role}-${index}.log`),
    }),
    onEvent: (event) => events.push(event),
    policy: QUICK,
    random: () => 0,
    ...options,
  });
  running = supervisor;
  const seen = async <T extends SupervisorEvent["type"]>(type: T, count = 1) => {
    const found = () =>
      events.filter((event): event is Extract<SupervisorEvent, { type: T }> => event.type === type);
    while (found().length < count) await sleep(5);
    return found();
  };
  return { supervisor, events, folder, seen };
}

const failureOf = async (supervisor: Supervisor): Promise<TroupeError> => {
  const error: unknown = await supervisor.outcome.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeDefined();
  return error as TroupeError;
};
const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

describe("a worker that dies", () => {
  it("is reported with its cause and last log lines, and started again", async () => {
    const crash = `console.log("loading"); console.error("first\\u001b[31m bad\\u001b[0m thing \\u0007"); process.exit(70)`;
    const { supervisor, seen } = start((_, __, restarts) => (restarts === 0 ? crash : FOREVER));
    supervisor.scale("learner", 1);
    const [died] = await seen("died");
    expect(died).toMatchObject({
      name: "learner-0",
      cause: { kind: "error", text: "exit code 70 (internal error)" },
      used: 1,
      allowed: 10,
    });
    expect(died.lastLines).toEqual(["loading", "first bad thing \\u0007"]);
    const [first, second] = await seen("started", 2);
    expect([first.restarts, second.restarts]).toEqual([0, 1]);
    expect(first.pid).not.toBe(second.pid);
    expect(isAlive(second.pid)).toBe(true);
  });

  it("shows only lines of its own life, not of the one before", async () => {
    const { supervisor, seen } = start((_, __, restarts) =>
      restarts < 2 ? `console.log("life ${restarts}"); process.exit(1)` : FOREVER,
    );
    supervisor.scale("rollout", 1);
    const [first, second] = await seen("died", 2);
    expect([first.lastLines, second.lastLines]).toEqual([["life 0"], ["life 1"]]);
  });

  it("names the signal that ended it", async () => {
    const { supervisor, seen } = start((_, __, restarts) =>
      restarts === 0 ? "process.kill(process.pid, 'SIGKILL')" : FOREVER,
    );
    supervisor.scale("rollout", 1);
    expect((await seen("died"))[0].cause.kind).toBe("killed");
  });

  it("leaves the others alone", async () => {
    const { supervisor, events, seen } = start((_, index, restarts) =>
      index === 1 && restarts === 0 ? "process.exit(1)" : FOREVER,
    );
    supervisor.scale("rollout", 3);
    await seen("died");
    await seen("started", 4);
    expect(
      events
        .filter((event) => event.type === "started")
        .map((event) => event.name)
        .sort(),
    ).toEqual(["rollout-0", "rollout-1", "rollout-1", "rollout-2"]);
  });
});

describe("when a run cannot go on", () => {
  it("a crash loop uses up the role's budget: exit code 12, with the last log lines", async () => {
    const { supervisor, events } = start(
      (role) => (role === "learner" ? `console.error("no such device"); process.exit(1)` : FOREVER),
      {
        policy: { ...QUICK, maxRestarts: 4 },
      },
    );
    supervisor.scale("rollout", 1);
    supervisor.scale("learner", 2);
    const error = await failureOf(supervisor);
    expect(EXIT_CODES[error.code]).toBe(12);
    expect(error.message).toMatch(/role learner used up its budget of 4 restarts/);
    expect(error.message).toContain("| no such device");
    expect(events.filter((event) => event.type === "died")).toHaveLength(4); // the fifth death ends the run
  });

  it.each([2, 20, 65, 73, 77])("exit code %i ends it at once, with the same code", async (code) => {
    const { supervisor, events } = start(() => `console.error("why"); process.exit(${code})`);
    supervisor.scale("learner", 1);
    const error = await failureOf(supervisor);
    expect(EXIT_CODES[error.code]).toBe(code);
    expect(error.message).toMatch(/^learner-0 ended: exit code/);
    expect(error.message).toContain("| why");
    expect(events.filter((event) => event.type === "started")).toHaveLength(1);
  });

  it("a command that cannot be started counts as a death", async () => {
    const folder = mkdtempSync(join(tmpdir(), "troupe-supervisor-"));
    const supervisor = new Supervisor({
      commandFor: () => ({
        name: "rollout-0",
        file: join(folder, "missing"),
        args: [],
        env: {},
        logPath: join(folder, "log"),
      }),
      onEvent: () => undefined,
      policy: { ...QUICK, maxRestarts: 1 },
    });
    running = supervisor;
    supervisor.scale("rollout", 1);
    expect((await failureOf(supervisor)).code).toBe("BUDGET");
  });
});

describe("the coordinator", () => {
  it("ends the run with exit code 0", async () => {
    const { supervisor } = start((role) => (role === "coordinator" ? "" : FOREVER));
    supervisor.scale("rollout", 1);
    supervisor.scale("coordinator", 1);
    await expect(supervisor.outcome).resolves.toBeUndefined();
  });

  it("starts again when it crashes, and when it leaves before the run is done", async () => {
    let isDone = false;
    const { supervisor, events } = start(
      (_, __, restarts) => {
        isDone = restarts === 2;
        return restarts === 0 ? "process.exit(70)" : "";
      },
      { isFinished: () => isDone },
    );
    supervisor.scale("coordinator", 1);
    await supervisor.outcome;
    expect(events.map((event) => event.type)).toEqual(["started", "died", "started", "left", "started"]);
  });

  it("ends the run as stopped with exit code 130: someone asked it to", async () => {
    const { supervisor } = start(() => "process.exit(130)");
    supervisor.scale("coordinator", 1);
    expect((await failureOf(supervisor)).code).toBe("CANCELLED");
  });

  it("is waited for by workers that left because it was gone; that costs no budget", async () => {
    const { supervisor, events, seen } = start(
      (role, _, restarts) => {
        if (role === "coordinator")
          return restarts === 0 ? "setTimeout(() => process.exit(70), 300)" : FOREVER;
        return restarts === 0 ? "setTimeout(() => process.exit(0), 400)" : FOREVER;
      },
      { policy: { ...QUICK, maxRestarts: 1 } },
    );
    supervisor.scale("coordinator", 1);
    supervisor.scale("rollout", 1);
    await seen("started", 4);
    expect(events.filter((event) => event.type === "left").map((event) => event.name)).toEqual(["rollout-0"]);
  });
});

describe("workers without a coordinator of their own", () => {
  it("are done when all have left", async () => {
    const { supervisor, events } = start(() => "", { onLeave: "done" });
    supervisor.scale("rollout", 2);
    supervisor.scale("learner", 1);
    await supervisor.outcome;
    expect(events.filter((event) => event.type === "started")).toHaveLength(3);
  });
});

describe("scaling", () => {
  it("starts what is missing and stops what is too many, highest numbers first", async () => {
    const { supervisor, seen } = start(() => FOREVER);
    supervisor.scale("rollout", 3);
    await seen("started", 3);
    supervisor.scale("rollout", 1);
    const stopped = await seen("stopped", 2);
    expect(stopped.map(({ name }) => name).sort()).toEqual(["rollout-1", "rollout-2"]);
    supervisor.scale("rollout", 2);
    expect((await seen("started", 4))[3].name).toBe("rollout-1");
    supervisor.scale("rollout", 2);
    await sleep(50);
    expect(await seen("started")).toHaveLength(4);
  });
});

describe("stopping", () => {
  it("ends every child, the coordinator first, and reports no death", async () => {
    const order = join(mkdtempSync(join(tmpdir(), "troupe-order-")), "order");
    const { supervisor, events, folder, seen } = start((role, index) => {
      const note = `require("fs").appendFileSync(${JSON.stringify(order)}, "${role}-${index} ")`;
      return `process.on("SIGTERM", () => { ${note}; process.exit(0); }); console.log("ready"); ${FOREVER}`;
    });
    supervisor.scale("rollout", 2);
    supervisor.scale("coordinator", 1);
    const started = await seen("started", 3);
    const isReady = (name: string) => readFileSync(join(folder, `${name}.log`), "utf8").includes("ready");
    while (!started.every(({ name }) => isReady(name))) await sleep(10);
    await supervisor.stop();
    expect(readFileSync(order, "utf8")).toMatch(/^coordinator-0 rollout-[01] rollout-[01] $/);
    expect(started.every(({ pid }) => !isAlive(pid))).toBe(true);
    expect(events.filter((event) => event.type === "died")).toEqual([]);
    await expect(supervisor.outcome).resolves.toBeUndefined();
  });

  it("kills what ignores SIGTERM once the grace is over, and only then", async () => {
    const { supervisor, folder, seen } = start(
      () => `process.on("SIGTERM", () => console.log("no")); console.log("ready"); ${FOREVER}`,
    );
    supervisor.scale("rollout", 1);
    const [{ pid }] = await seen("started");
    const log = () => readFileSync(join(folder, "rollout-0.log"), "utf8");
    while (!log().includes("ready")) await sleep(10);
    const startedAtMs = performance.now();
    await supervisor.stop({ graceMs: 400 });
    expect(performance.now() - startedAtMs).toBeGreaterThan(150); // half of the grace may go to a coordinator
    expect(log()).toContain("no");
    expect(isAlive(pid)).toBe(false);
  });

  it("interrupts a wait for a restart, and may be called twice", async () => {
    const { supervisor, seen } = start(() => "process.exit(1)", {
      policy: { baseDelayMs: 60_000, maxDelayMs: 60_000 },
    });
    supervisor.scale("learner", 1);
    await seen("died");
    await Promise.all([supervisor.stop(), supervisor.stop()]);
    supervisor.scale("learner", 5); // too late
    expect((await seen("started")).length).toBe(1);
  });

  it("first lets workers leave by themselves when asked to be patient", async () => {
    const { supervisor, folder, seen } = start((role) => {
      if (role === "coordinator") return "";
      return `process.on("SIGTERM", () => { console.log("was told"); process.exit(0); }); setTimeout(() => { console.log("left"); process.exit(0); }, 300)`;
    });
    supervisor.scale("rollout", 1);
    await seen("started");
    supervisor.scale("coordinator", 1);
    await supervisor.outcome;
    await supervisor.stop({ patienceMs: 5_000 });
    expect(readFileSync(join(folder, "rollout-0.log"), "utf8").trim()).toBe("left");
  });
});
