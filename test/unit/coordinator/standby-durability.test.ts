import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { configSchema } from "../../../src/config/schema.js";
import {
  DEFAULT_CORE_CONFIG,
  emptyDurableState,
  makeState,
  reduce,
  type JsonValue,
} from "../../../src/coordinator/core/index.js";
import { followsAnother, openDurability } from "../../../src/coordinator/standby-durability.js";

it("a directory that holds a run is gone on with only when that is asked for", async () => {
  const runDir = mkdtempSync(join(tmpdir(), "troupe-durability-"));
  const open = (mayContinue: boolean) =>
    openDurability({
      config: configSchema.parse({ data: { path: "rows.jsonl" } }),
      runDir,
      standby: false,
      mayContinue,
      allowDrift: false,
      signal: new AbortController().signal,
    });
  const first = await open(false);
  await first!.log.append([{ record: { type: "EpochStarted", epoch: 1 } }]);
  await first!.log.close();
  const second = await open(false); // the first one found its port taken: nothing was done yet
  await second!.log.append([{ record: { type: "StageStarted", stage: "sft" } }]);
  await second!.log.close();
  await expect(open(false)).rejects.toMatchObject({
    code: "CONFIG",
    message: expect.stringMatching(/holds a run already; continue it with --resume auto/) as string,
  });
  const again = await open(true);
  expect(again).toMatchObject({ runId: first!.runId, recovered: { epoch: 1 } });
  await again!.log.close();
  rmSync(runDir, { recursive: true });
});

it("a run is not gone on with under settings that change its results, whoever starts the coordinator", async () => {
  const runDir = mkdtempSync(join(tmpdir(), "troupe-durability-"));
  const open = (cluster: object, allowDrift = false) =>
    openDurability({
      config: configSchema.parse({ data: { path: "rows.jsonl" }, cluster }),
      ...{ runDir, standby: false, mayContinue: true, allowDrift },
      signal: new AbortController().signal,
    });
  const run = async (cluster: object, allowDrift?: boolean) => {
    const { log, recovered } = (await open(cluster, allowDrift))!;
    const state = makeState(DEFAULT_CORE_CONFIG, recovered);
    const config = JSON.parse(
      JSON.stringify(configSchema.parse({ data: { path: "rows.jsonl" }, cluster })),
    ) as JsonValue;
    const events = [
      { type: "CoordinatorStarted", config },
      { type: "StageStarted", stage: "sft" },
    ] as const;
    for (const event of events)
      for (const effect of reduce(state, event, 0)) if (effect.type === "journal") await log.append([effect]);
    await log.close();
  };
  await run({ microShards: 8 });
  await run({ microShards: 8, rollouts: 7, leaseTtlMs: 20_000 });
  const refused = {
    code: "CONFIG",
    message: expect.stringMatching(/cluster\.microShards: was 8, is now 4\n.*--allow-drift/) as string,
  };
  await expect(open({ microShards: 4 })).rejects.toMatchObject(refused);
  await run({ microShards: 4 }, true);
  await run({ microShards: 4 }); // the new values are the run's now
  rmSync(runDir, { recursive: true });
});

it.each([
  ["a first start", { mayContinue: false, standby: false }, null, false],
  ["--resume auto", { mayContinue: true, standby: false }, null, true],
  ["a standby that takes over", { mayContinue: false, standby: true }, null, true],
  ["a run that NATS keeps", { mayContinue: false, standby: false }, "sft", true],
])("%s: another coordinator may still have the ports?", (_, options, stage, expected) => {
  expect(followsAnother(options, { ...emptyDurableState(), stage })).toBe(expected);
});
