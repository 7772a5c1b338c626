import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { DEFAULT_CORE_CONFIG } from "../../../src/coordinator/core/config.js";
import { configSchema } from "../../../src/config/schema.js";
import { CONTROL_DEADLINE_MS, BULK_DEADLINE_MS, RECONNECT_BUDGET_MS } from "../../../src/rpc/deadlines.js";
import { EXIT_CODES, FATAL_EXIT_CODES } from "../../../src/shared/errors.js";
import { pathOf, read } from "./repository.js";

const operations = read("docs/operations.md");

/** Rows of the table under a heading, cells trimmed. */
function tableUnder(heading: string): string[][] {
  const section = operations.split(`## ${heading}\n`)[1].split("\n## ")[0];
  const rows = section.split("\n").filter((line) => line.startsWith("|"));
  return rows.slice(2).map((row) =>
    row
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

test("the exit code table is the program's", () => {
  const documented = tableUnder("Exit codes").flatMap(([code, names]) =>
    (names.match(/[A-Z_]+/g) ?? []).map((name) => [name, Number(code)] as const),
  );
  expect(Object.fromEntries(documented)).toEqual(EXIT_CODES);
});

test("no supervisor restarts a process whose input would fail again", () => {
  const fatal = [...FATAL_EXIT_CODES].sort((a, b) => a - b);
  const unit = /^RestartPreventExitStatus=(.*)$/m.exec(read("deploy/systemd/troupe-worker@.service"))?.[1];
  expect(unit?.split(" ").map(Number)).toEqual(fatal);
  expect(operations).toContain(`never restarted: ${fatal.join(", ")}.`);
  for (const [code, , , restart] of tableUnder("Exit codes")) {
    if (FATAL_EXIT_CODES.has(Number(code))) expect(restart).toMatch(/^no/);
  }
});

test("the timeout table has the defaults", () => {
  const { cluster } = configSchema.parse({ data: { path: "x" } });
  const rows = new Map(
    tableUnder("Timeouts").map(([what, value, where]) => [
      where.startsWith("`") ? where.slice(1, -1) : what,
      value,
    ]),
  );
  const seconds = (name: string) => Number(/^[\d.]+/.exec(rows.get(name) ?? "")?.[0]);
  expect(seconds("cluster.heartbeatIntervalMs") * 1000).toBe(cluster.heartbeatIntervalMs);
  expect(seconds("cluster.leaseTtlMs") * 1000).toBe(cluster.leaseTtlMs);
  expect(seconds("cluster.taskTimeoutMs") * 1000).toBe(cluster.taskTimeoutMs);
  expect(seconds("cluster.stepTimeoutMs") * 1000).toBe(cluster.stepTimeoutMs);
  expect(seconds("unary call") * 1000).toBe(CONTROL_DEADLINE_MS);
  expect(seconds("transfer of a model file") * 1000).toBe(BULK_DEADLINE_MS);
  expect(seconds("worker without coordinator") * 1000).toBe(RECONNECT_BUDGET_MS);
  expect(seconds("work without any worker") * 1000).toBe(DEFAULT_CORE_CONFIG.waitForWorkersMs);
});

test.each(["docs/operations.md", "deploy/README.md"])("links of %s lead somewhere", (file) => {
  const links = [...read(file).matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1]);
  expect(links.length).toBeGreaterThan(2);
  for (const link of links) {
    const [path, anchor] = link.split("#");
    const target = path === "" ? file : join(dirname(file), path);
    expect([link, existsSync(pathOf(target))]).toEqual([link, true]);
    if (anchor === undefined) continue;
    const anchors = read(target)
      .match(/^#+ .*$/gm)
      ?.map((line) =>
        line
          .replace(/^#+ /, "")
          .toLowerCase()
          .replaceAll(/[^\w\- ]/g, "")
          .replaceAll(" ", "-"),
      );
    expect(anchors).toContain(anchor);
  }
});
