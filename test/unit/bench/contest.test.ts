import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { contest, medianOf, peerSide, type SideCommand } from "../../../src/bench/contest.js";
import { lineAt } from "../../../src/bench/growth.js";
import { tableOf } from "../../../src/bench/row.js";

const folder = mkdtempSync(join(tmpdir(), "troupe-bench-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Answers "go" with the next of `seconds`, and writes its label to a shared file. */
function scripted(label: string, log: string, seconds: readonly number[]): SideCommand {
  const source = `
    const { appendFileSync } = require("node:fs");
    const seconds = ${JSON.stringify(seconds)};
    console.log("a library says hello");
    console.log(JSON.stringify({ ready: true, version: "v-${label}", facts: { start: 3 } }));
    require("node:readline").createInterface({ input: process.stdin }).on("line", () => {
      appendFileSync(${JSON.stringify(log)}, "${label}");
      const s = seconds.shift();
      console.log(JSON.stringify({ seconds: s, cpuSeconds: s / 2, units: 4, peakMb: 10 * s, facts: { waited: 100 * s } }));
    });`;
  return { label, command: process.execPath, args: ["-e", source] };
}

test("sides take turns, warm-ups do not count, and the median does, of a turn's own facts too", async () => {
  const log = join(folder, "turns");
  const standings = await contest([scripted("a", log, [9, 1, 3, 2]), scripted("b", log, [9, 6, 4, 5])], {
    rounds: 3,
    warmups: 1,
  });
  expect(readFileSync(log, "utf8")).toBe("abababab");
  expect(standings).toEqual([
    {
      label: "a",
      version: "v-a",
      seconds: 2,
      cpuSeconds: 1,
      units: 4,
      peakMb: 30,
      facts: { start: 3, waited: 200 },
    },
    {
      label: "b",
      version: "v-b",
      seconds: 5,
      cpuSeconds: 2.5,
      units: 4,
      peakMb: 60,
      facts: { start: 3, waited: 500 },
    },
  ]);
});

test("a side that dies is named with what it said", async () => {
  const dying = {
    label: "peer",
    command: process.execPath,
    args: ["-e", "throw new Error('no torch here')"],
  };
  await expect(contest([dying], { rounds: 1, warmups: 0 })).rejects.toThrow(
    /side peer ended early.*no torch here/s,
  );
});

test("without TROUPE_PEER_PYTHON there is no peer", () => {
  const before = process.env.TROUPE_PEER_PYTHON;
  delete process.env.TROUPE_PEER_PYTHON;
  expect(peerSide("decode", { threads: 1 })).toBeNull();
  if (before !== undefined) process.env.TROUPE_PEER_PYTHON = before;
});

test("the median of an even number of values is between the middle two", () => {
  expect(medianOf([4, 1, 3, 2])).toBe(2.5);
  expect(medianOf([5, 1, 3])).toBe(3);
});

test("a row without a peer says why", () => {
  const row = { name: "n", config: "c", unit: "ms", ours: 1234.5, peer: null, peerName: "none", ratio: null };
  expect(tableOf([row]).split("\n")[1]).toMatch(/^n {6}c {7}ms {4}1235 {2}- {5}- {6}- {10}none$/);
});

test("growth is measured against the straight line through the smallest and the largest size", () => {
  expect([2, 4, 10].map((x) => lineAt([2, 4, 10], [7, 100, 31], x))).toEqual([7, 13, 31]);
});
