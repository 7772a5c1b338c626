import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { generateDataset } from "../../../examples/quickstart/generate.js";
import { goldScore } from "../../../examples/quickstart/gold.js";
import { formatDuration, formatNumber, ProgressView } from "../../../src/launcher/progress-view.js";
import { quickstartConfig, withGoldScore, writeQuickstartData } from "../../../src/launcher/quickstart.js";
import { readEvalSamples, readSummary, type Summary } from "../../../src/launcher/summary.js";
import { printSummary, resultTable, sampleBlock, wrap } from "../../../src/launcher/summary-view.js";
import type { ProgressEvent } from "../../../src/observability/progress.js";

function view(options: { isTTY?: boolean; env?: NodeJS.ProcessEnv } = {}) {
  const written: string[] = [];
  let nowMs = 0;
  const progress = new ProgressView({
    stream: { write: (text) => written.push(text), isTTY: options.isTTY ?? false, columns: 100 },
    env: options.env ?? {},
    now: () => nowMs,
  });
  return { progress, output: () => written.join(""), advance: (ms: number) => (nowMs += ms) };
}

const step = (completedUnits: number, metrics = {}): ProgressEvent => ({
  type: "progress",
  stage: "ppo",
  completedUnits,
  totalUnits: 40,
  metrics,
});
const begin: ProgressEvent = {
  type: "stage-started",
  stage: "ppo",
  unit: "iteration",
  totalUnits: 40,
  completedUnits: 10,
};

describe("progress", () => {
  it("without a terminal is a plain line every few seconds", () => {
    const { progress, output, advance } = view();
    progress.progressEvent(begin);
    for (let i = 1; i <= 20; i++) {
      advance(1_000);
      progress.progressEvent(step(10 + i));
    }
    expect(
      output()
        .split("\n")
        .filter((line) => line.startsWith("ppo")),
    ).toHaveLength(1 + 4);
    expect(output()).not.toContain("\u001b");
  });

  it("on a terminal is one line, redrawn", () => {
    const { progress, output, advance } = view({ isTTY: true, env: { NO_COLOR: "1" } });
    progress.progressEvent(begin);
    advance(3_000);
    progress.progressEvent(step(20, { "objective/scores": 1.23456, "objective/kl": 0.00001 }));
    progress.note("something else");
    expect(output().match(/\n/g)).toHaveLength(1); // the note; bars end in no newline
    const last = output().split("\r\u001b[2K").at(-1);
    expect(last).toContain("████████████░░░░░░░░░░░░  20/40 iterations  reward 1.235  kl 1.0e-5");
    expect(last).toContain("6.0 s left"); // 10 iterations in 3 s since this process looked, 20 to go
  });

  it("never lets a run's text act on the terminal", () => {
    const { progress, output } = view({ env: { NO_COLOR: "1" } });
    progress.progressEvent({ type: "message", level: "warn", text: "a\u001b[2Jb\nc" });
    expect(output()).toBe("a\\u001b[2Jb\\nc\n");
  });

  it("colours only where colours are wanted", () => {
    const warning: ProgressEvent = { type: "message", level: "warn", text: "x" };
    for (const [isTTY, env, isColored] of [
      [true, {}, true],
      [true, { NO_COLOR: "1" }, false],
      [false, {}, false],
      [false, { FORCE_COLOR: "1" }, true],
      [true, { TERM: "dumb" }, false],
    ] as const) {
      const { progress, output } = view({ isTTY, env });
      progress.progressEvent(warning);
      expect(output().includes("\u001b[33m"), JSON.stringify([isTTY, env])).toBe(isColored);
    }
  });

  it("reports a death with its last lines and when it starts again", () => {
    const { progress, output } = view({ env: { NO_COLOR: "1" } });
    progress.supervisorEvent({
      type: "died",
      role: "learner",
      name: "learner-1",
      pid: 12,
      cause: { kind: "oom", text: "out of memory" },
      lastLines: ["boom"],
      logPath: "/logs/learner-1.log",
      restartInMs: 1234,
      used: 2,
      allowed: 10,
    });
    expect(output()).toBe(
      "learner-1 (pid 12): out of memory; restart 2 of 10 allowed in 10 min, in 1.2 s\n    | boom\n    log: /logs/learner-1.log\n",
    );
  });

  it("leaves a failed run's error to the report of its coordinator's exit, so that it is read once", () => {
    const { progress, output } = view({ isTTY: true, env: { NO_COLOR: "1" } });
    progress.progressEvent(begin);
    progress.progressEvent({ type: "run-finished", outcome: "failed", elapsedMs: 1, error: "reward is NaN" });
    expect(output()).not.toContain("reward is NaN");
    expect(output().endsWith("\r\u001b[2K")).toBe(true); // the bar is gone
  });

  it("writes durations and numbers for people", () => {
    expect([8100, 59_949, 59_960, 245_000, 3_600_000, 7_800_000].map(formatDuration)).toEqual([
      "8.1 s",
      "59.9 s",
      "1 min 00 s",
      "4 min 05 s",
      "1 h 00 min",
      "2 h 10 min",
    ]);
    expect([
      formatNumber(0, 3),
      formatNumber(0.0004, 3),
      formatNumber(-12.3456, 2),
      formatNumber(NaN, 3),
    ]).toEqual(["0.000", "4.0e-4", "-12.35", "NaN"]);
  });
});

const summary: Summary = {
  sft: { evalLossBefore: 4.36, evalLossAfter: 1.2 },
  reward: { heldOutAccuracy: 0.91 },
  ppo: {
    heldOutReward: { before: 0.1, after: 1.5 },
    goldScore: { before: 0.6, after: 0.85 },
    klToRef: 3.25,
    iterations: 40,
    experiences: { admitted: 10, trained: 8, dropped: 1, buffered: 1 },
  },
  processes: { rollout: 2, learner: 2 },
  seconds: 245,
  model: "/runs/my run/models/ppo",
  stateSha256: "00",
};

describe("the summary", () => {
  it("is a table of before and after", () => {
    const table = resultTable(summary).map((line) => line.replaceAll(/ {2,}/g, "|"));
    expect(table[0]).toBe("|before|after");
    expect(table.slice(2)).toEqual([
      "sft held-out loss (nats per token)|4.360|1.200",
      "reward model held-out accuracy|0.910",
      "held-out reward|0.100|1.500",
      "gold score (true quality, never trained on)|0.600|0.850",
      "KL to the reference (nats per answer)|3.250",
    ]);
    expect(new Set(resultTable(summary).map((line) => line.length)).size).toBe(1);
  });

  it("leaves out what did not run", () => {
    expect(resultTable({ sft: { evalLossBefore: null, evalLossAfter: 1 } })).toHaveLength(3);
    expect(resultTable({})).toEqual([]);
  });

  it("shows answers side by side, wrapped and escaped", () => {
    const sample = {
      prompt: "Say hi",
      before: "one two three four five six seven",
      after: "x\u001b[2Jy",
      rewardBefore: 0.5,
      rewardAfter: 2,
    };
    const lines = sampleBlock(sample, 43);
    expect(lines).toEqual(
      [
        "",
        "> Say hi",
        "before (reward 0.50 │ after (reward 2.000)",
        "one two three four   │ x\\u001b[2Jy",
        "five six seven       │",
      ].map((line, i) => (i === 2 ? "before (reward 0.500) │ after (reward 2.000)" : line)),
    );
  });

  it("wraps at spaces and cuts words that are longer than a line", () => {
    expect(wrap("aa bb cc", 5)).toEqual(["aa bb", "cc"]);
    expect(wrap("abcdefgh ij", 3)).toEqual(["abc", "def", "gh", "ij"]);
    expect(wrap("", 5)).toEqual([""]);
  });

  it("ends with where the model is and a command that can be pasted", () => {
    const written: string[] = [];
    const samples = [{ prompt: "p", before: "b", after: "a" }];
    printSummary({
      summary,
      samples,
      sampleCount: 5,
      stream: { write: (text) => written.push(text) },
      env: {},
      cwd: "/runs",
    });
    const output = written.join("");
    expect(output).toContain("wall time  4 min 05 s");
    expect(output).toContain("model      my run/models/ppo");
    expect(output.trimEnd().split("\n").at(-1)).toBe(
      "next       npx troupe chat --model 'my run/models/ppo'",
    );
  });

  it("is read from the run directory, or refused with the place at fault", async () => {
    const dir = mkdtempSync(join(tmpdir(), "troupe-summary-"));
    expect(await readSummary(dir)).toBeUndefined();
    expect(await readEvalSamples(dir)).toEqual([]);
    writeFileSync(join(dir, "summary.json"), JSON.stringify({ ...summary, extra: 1 }));
    expect(await readSummary(dir)).toEqual({ ...summary, extra: 1 });
    writeFileSync(
      join(dir, "eval-samples.jsonl"),
      '{"prompt":"p","before":"b","after":"a","rewardBefore":1}\n{"prompt":"p"}\n',
    );
    await expect(readEvalSamples(dir)).rejects.toThrow(/eval-samples\.jsonl:2 cannot be used.*before/);
  });
});

describe("the quickstart", () => {
  it("points the config at files it writes in the run directory; the user's settings win", () => {
    const { config } = quickstartConfig({
      preset: "tiny",
      runDir: "/runs/q",
      sets: ["ppo.iterations=7"],
      flags: { "cluster.rollouts": 3 },
    });
    expect(config.data.path).toBe("/runs/q/data/preferences.jsonl");
    expect(config.model.tokenizer).toEqual({ type: "path", path: "/runs/q/data/tokenizer" });
    expect([config.ppo.iterations, config.cluster.rollouts, config.model.fresh.layers]).toEqual([7, 3, 1]);
  });

  it("writes the same data for the same seed, and leaves data of an earlier start alone", async () => {
    const rows = async (seed: number) => {
      const dir = mkdtempSync(join(tmpdir(), "troupe-quickstart-"));
      await writeQuickstartData(dir, "tiny", seed);
      return { dir, text: readFileSync(join(dir, "data", "preferences.jsonl"), "utf8") };
    };
    const [first, second, other] = [await rows(1), await rows(1), await rows(2)];
    expect(first.text).toBe(second.text);
    expect(first.text).not.toBe(other.text);
    expect(first.text.trim().split("\n")).toHaveLength(600);
    await writeQuickstartData(first.dir, "tiny", 2);
    expect(readFileSync(join(first.dir, "data", "preferences.jsonl"), "utf8")).toBe(first.text);
  });

  it("adds the mean gold score of all held-out answers", async () => {
    const rows = generateDataset({ rows: 2, seed: 1, labelNoise: 0 });
    const samples = rows.map(({ prompt, chosen, rejected }) => ({ prompt, before: rejected, after: chosen }));
    const { ppo } = await withGoldScore({ ppo: { klToRef: 1 } }, samples);
    const gold = (answer: "chosen" | "rejected") =>
      (goldScore(rows[0].prompt, rows[0][answer]) + goldScore(rows[1].prompt, rows[1][answer])) / 2;
    expect(ppo).toEqual({ klToRef: 1, goldScore: { before: gold("rejected"), after: gold("chosen") } });
    expect(gold("chosen")).toBeGreaterThan(gold("rejected"));
    expect(await withGoldScore({ seconds: 1 }, [])).toEqual({ seconds: 1 });
  });
});
