import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { errorCodeOfExit, exitCause } from "../../../src/launcher/exit-cause.js";
import { lastError, lastLogLines } from "../../../src/launcher/log-tail.js";
import { EXIT_CODES, FATAL_EXIT_CODES } from "../../../src/shared/errors.js";

describe("why a process ended", () => {
  it("a full heap is out of memory, any other abort is not", () => {
    const v8 = [
      "<--- Last few GCs --->",
      "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
    ];
    expect(exitCause({ code: null, signal: "SIGABRT" }, v8).kind).toBe("oom");
    expect(exitCause({ code: 134, signal: null }, v8).kind).toBe("oom");
    expect(exitCause({ code: null, signal: "SIGABRT" }, ["assertion failed"]).kind).toBe("abort");
  });

  it.each([
    [{ code: null, signal: "SIGKILL" as const }, "killed"],
    [{ code: 137, signal: null }, "killed"],
    [{ code: null, signal: "SIGSEGV" as const }, "segv"],
    [{ code: 139, signal: null }, "segv"],
    [{ code: 143, signal: null }, "signal"],
    [{ code: 0, signal: null }, "ok"],
    [{ code: 1, signal: null }, "error"],
    [{ code: 69, signal: null }, "error"],
  ])("%j is %s", (exit, kind) => expect(exitCause(exit).kind).toBe(kind));

  it("every code a restart cannot cure is fatal and says what it means", () => {
    for (const code of FATAL_EXIT_CODES) {
      const cause = exitCause({ code, signal: null });
      expect(cause.kind).toBe("fatal");
      expect(cause.text).toMatch(/^exit code \d+ \(.+\)$/);
      expect(EXIT_CODES[errorCodeOfExit(code)]).toBe(code);
    }
  });
});

describe("the last lines of a log", () => {
  const path = join(mkdtempSync(join(tmpdir(), "troupe-log-")), "x.log");

  it("start where the process started, skip empty lines, lose colours, show control characters", () => {
    const old = "from before\n";
    writeFileSync(path, `${old}\u001b[32mgreen\u001b[0m\n\nbell\u0007\n`);
    expect(lastLogLines(path, old.length, 5)).toEqual(["green", "bell\\u0007"]);
    expect(lastLogLines(path, 0, 2)).toEqual(["green", "bell\\u0007"]);
  });

  it("are few and short, however long the log is", () => {
    writeFileSync(path, `${"x".repeat(1_000_000)}\n${"line\n".repeat(100)}`);
    expect(lastLogLines(path, 0, 3)).toEqual(["line", "line", "line"]);
    writeFileSync(path, "y".repeat(5000));
    expect(lastLogLines(path, 0, 1)[0]).toHaveLength(240);
  });

  it("are none when there is no log", () => expect(lastLogLines(`${path}.none`, 0, 3)).toEqual([]));
});

describe("what a process said went wrong", () => {
  const path = join(mkdtempSync(join(tmpdir(), "troupe-error-")), "x.log");

  it("is all from its last `error:` on, whole, without the stack traces before it", () => {
    const long = "y".repeat(400);
    writeFileSync(
      path,
      `old life\nerror: earlier\n    at f (x.js:1)\nerror: 2 problems:\n  a: ${long}\n  b: no\n`,
    );
    expect(lastError(path, 0)).toBe(`2 problems:\n  a: ${long}\n  b: no`);
  });

  it("is nothing when it crashed without a word, or spoke in an earlier life", () => {
    writeFileSync(path, "error: earlier\n");
    expect(lastError(path, "error: earlier\n".length)).toBeUndefined();
    expect(lastError(`${path}.none`, 0)).toBeUndefined();
  });
});
