import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openAppendFile } from "../../../src/observability/append-file.js";
import { EventBus } from "../../../src/observability/progress.js";
import { startRunFiles } from "../../../src/observability/run-files.js";
import { readEvents } from "./read-events.js";

let dir: string;
beforeEach(() => void (dir = mkdtempSync(join(tmpdir(), "troupe-run-files-"))));
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const progress = (stage: "sft" | "ppo", unit: number, metrics: Record<string, number>) =>
  ({ type: "progress", stage, completedUnits: unit, totalUnits: 9, metrics }) as const;

const jsonLines = () =>
  readFileSync(join(dir, "metrics.jsonl"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as unknown);

test("both files tell the same story: remembered events, live ones, final numbers", async () => {
  let now = 1_700_000_000_500;
  const bus = new EventBus({ now: () => now });
  bus.publish(progress("sft", 1, { loss: 2.5 }));
  const files = await startRunFiles({ bus, dir, now: () => now });
  now += 1000;
  bus.publish(progress("ppo", 3, { "objective/kl": 0.5, "val/ratio": Infinity }));
  bus.publish({ type: "message", level: "info", text: "not a record" });
  bus.publish({ type: "stage-finished", stage: "ppo", elapsedMs: 5, metrics: { eval_score: 1 } });
  await files.close();
  bus.publish(progress("ppo", 4, { "objective/kl": 9 }));

  const t0 = "2023-11-14T22:13:20.500Z";
  const t1 = "2023-11-14T22:13:21.500Z";
  expect(jsonLines()).toEqual([
    { time: t0, kind: "progress", stage: "sft", unit: 1, metrics: { loss: 2.5 } },
    {
      time: t1,
      kind: "progress",
      stage: "ppo",
      unit: 3,
      metrics: { "objective/kl": 0.5, "val/ratio": "Infinity" },
    },
    { time: t1, kind: "stage", stage: "ppo", metrics: { eval_score: 1 } },
  ]);
  expect(readdirSync(join(dir, "tensorboard"))).toEqual([
    expect.stringMatching(/^events\.out\.tfevents\.1700000000\./),
  ]);
  expect(readEvents(readFileSync(files.tensorboardPath))).toEqual([
    { wallTime: 1_700_000_000.5, step: 0, fileVersion: "brain.Event:2", scalars: {} },
    { wallTime: 1_700_000_000.5, step: 1, scalars: { "sft/loss": 2.5 } },
    { wallTime: 1_700_000_001.5, step: 3, scalars: { "objective/kl": 0.5, "val/ratio": Infinity } },
    { wallTime: 1_700_000_001.5, step: 0, scalars: { "final/ppo/eval_score": 1 } },
  ]);
});

test("flush makes everything published so far readable while the files stay open", async () => {
  const bus = new EventBus();
  const files = await startRunFiles({ bus, dir });
  for (let unit = 1; unit <= 200; unit++) bus.publish(progress("ppo", unit, { lr: unit }));
  await files.flush();
  expect(jsonLines()).toHaveLength(200);
  expect(readEvents(readFileSync(files.tensorboardPath))).toHaveLength(201);
  await files.close();
  await files.close();
});

test("a resumed run appends after a torn last line without joining two records", async () => {
  writeFileSync(join(dir, "metrics.jsonl"), '{"unit":1}\n{"unit":2,"met');
  const bus = new EventBus();
  const files = await startRunFiles({ bus, dir });
  bus.publish(progress("ppo", 2, { lr: 1 }));
  await files.close();
  const lines = readFileSync(join(dir, "metrics.jsonl"), "utf8").split("\n");
  expect(lines[1]).toBe('{"unit":2,"met');
  expect(JSON.parse(lines[2])).toMatchObject({ unit: 2, metrics: { lr: 1 } });
});

test("an unusable folder is a STORAGE error that names the file", async () => {
  writeFileSync(join(dir, "file"), "");
  await expect(startRunFiles({ bus: new EventBus(), dir: join(dir, "file") })).rejects.toMatchObject({
    code: "STORAGE",
    message: expect.stringContaining(join(dir, "file", "metrics.jsonl")) as string,
  });
});

test("a full disk fails flush and close, not the publisher", async () => {
  const full = await openAppendFile("/dev/full");
  expect(() => full.append("x")).not.toThrow();
  await expect(full.flush()).rejects.toMatchObject({ code: "STORAGE" });
  await expect(full.close()).rejects.toMatchObject({ code: "STORAGE" });
});
