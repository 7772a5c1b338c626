import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { createLogger, type LoggerOptions } from "../../../src/observability/logger.js";
import { escapeControl, escapeControlLines } from "../../../src/observability/text.js";

let dir: string;
beforeEach(() => void (dir = mkdtempSync(join(tmpdir(), "troupe-logger-"))));
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(dir, { recursive: true, force: true });
});

function start(options: Partial<LoggerOptions> = {}) {
  const shown: string[] = [];
  const file = join(dir, "logs", "coordinator.ndjson");
  const log = createLogger({
    role: "rollout",
    runId: "run-1",
    workerId: "rollout-0",
    file,
    pretty: { write: (text: string) => shown.push(text) },
    ...options,
  });
  const records = async () => {
    await log.close();
    return readFileSync(file, "utf8").trimEnd().split("\n");
  };
  return { log, shown, records };
}

test("every file line is JSON with the process's bindings, level name and ISO time", async () => {
  const { log, records } = start();
  log.child({ task: "3/0" }).warn({ attempt: 2 }, "again");
  const [line] = await records();
  expect(JSON.parse(line)).toMatchObject({
    level: "warn",
    run_id: "run-1",
    role: "rollout",
    worker_id: "rollout-0",
    pid: process.pid,
    task: "3/0",
    attempt: 2,
    msg: "again",
    time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/) as string,
  });
});

test("debug goes to the file and not to the terminal by default", async () => {
  const { log, shown, records } = start();
  log.debug("detail");
  log.info("headline");
  expect(await records()).toHaveLength(2);
  expect(shown).toHaveLength(1);
});

test("the pretty line names worker, message and fields, without color away from a terminal", async () => {
  const { log, shown, records } = start();
  log.info({ iteration: 3, note: "a b" }, "collected");
  await records();
  expect(shown[0]).toMatch(
    /^\d\d:\d\d:\d\d\.\d{3} {2}INFO {3}rollout-0 {2}collected {2}iteration=3 {2}note=a b\n$/,
  );
});

test("color follows the terminal, NO_COLOR and FORCE_COLOR", async () => {
  const isColored = (isTTY: boolean) => {
    const shown: string[] = [];
    const log = createLogger({ role: "cli", pretty: { isTTY, write: (text: string) => shown.push(text) } });
    log.info("x");
    return shown[0].includes("\u001b[");
  };
  vi.stubEnv("NO_COLOR", "");
  vi.stubEnv("FORCE_COLOR", "");
  expect(isColored(true)).toBe(true);
  expect(isColored(false)).toBe(false);
  vi.stubEnv("NO_COLOR", "1");
  expect(isColored(true)).toBe(false);
  vi.stubEnv("FORCE_COLOR", "1");
  expect(isColored(false)).toBe(true);
});

test("secrets reach neither file nor terminal, wherever they come from", async () => {
  const canary = 'canary-"7f3a9c"\\secret';
  const { log, shown, records } = start({ secrets: [canary, "short"] });
  log.info({ token: "field-value-1", peer: { authorization: "field-value-2" } }, "by field name");
  log.info({ text: `before ${canary} after` }, `in the message ${canary}`);
  log.error({ err: new Error(`refused ${canary}`) }, "in an error");
  log.info("header Authorization: Bearer abcdef0123456789 and hf_abcdefghijklmnopqrstuv");
  log.info("a short word stays");
  const written = (await records()).join("\n") + shown.join("");
  for (const secret of [
    canary,
    "7f3a9c",
    "field-value-1",
    "field-value-2",
    "abcdef0123456789",
    "hf_abcdefghij",
  ]) {
    expect(written).not.toContain(secret);
  }
  expect(written).toContain("a short word stays");
  expect(written.match(/\[redacted\]/g)?.length).toBeGreaterThanOrEqual(12);
});

test("control characters in values, keys, messages and stack traces cannot reach the terminal", async () => {
  const hostile = "\u001b[2J\u0007\r\u009b31m\u202etxt\u2028\n";
  const { log, shown, records } = start();
  log.info({ [`key${hostile}`]: hostile, nested: { deep: hostile } }, hostile);
  log.error({ err: new Error(hostile) }, "failed");
  const lines = await records();
  const control = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028-\u202e]/;
  expect(shown.join("")).not.toMatch(control);
  expect(lines.join("")).not.toMatch(control);
  expect(shown[0].split("\n")).toHaveLength(2);
  expect((JSON.parse(lines[0]) as { msg: string }).msg).toBe(hostile);
});

test("escapes are visible, and only the multi-line form keeps newlines", () => {
  expect(escapeControl("a\n\t\u001bb\u202e")).toBe("a\\n\\t\\u001bb\\u202e");
  expect(escapeControlLines("a\n\u001bb")).toBe("a\n\\u001bb");
  expect(escapeControl("naïve 日本 🎭")).toBe("naïve 日本 🎭");
});

test("a log file that cannot be opened is a STORAGE error that names it", () => {
  writeFileSync(join(dir, "file"), "");
  expect(() => start({ file: join(dir, "file", "x.ndjson") })).toThrow(
    expect.objectContaining({ code: "STORAGE", message: expect.stringContaining("x.ndjson") as string }),
  );
});

test("a line that comes after close is shown, and throws into nobody", async () => {
  const { log, shown, records } = start();
  log.info("before");
  expect(await records()).toHaveLength(1);
  log.child({ task: "3/0" }).warn("after");
  expect(shown.join("")).toContain("after");
  expect(await records()).toHaveLength(1);
});

test("close is idempotent and works without a file", async () => {
  const log = createLogger({ role: "cli", level: "silent" });
  log.info("nobody hears this");
  await log.close();
  await log.close();
});
