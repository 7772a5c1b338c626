import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { configSchema } from "../../../src/config/schema.js";
import { emptyDurableState } from "../../../src/coordinator/core/index.js";
import { followsAnother, openDurability } from "../../../src/coordinator/standby-durability.js";

it("a directory that holds a run is gone on with only when that is asked for", async () => {
  const runDir = mkdtempSync(join(tmpdir(), "troupe-durability-"));
  const open = (mayContinue: boolean) =>
    openDurability({
      config: configSchema.parse({ data: { path: "rows.jsonl" } }),
      runDir,
      standby: false,
      mayContinue,
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

it.each([
  ["a first start", { mayContinue: false, standby: false }, null, false],
  ["--resume auto", { mayContinue: true, standby: false }, null, true],
  ["a standby that takes over", { mayContinue: false, standby: true }, null, true],
  ["a run that NATS keeps", { mayContinue: false, standby: false }, "sft", true],
])("%s: another coordinator may still have the ports?", (_, options, stage, expected) => {
  expect(followsAnother(options, { ...emptyDurableState(), stage })).toBe(expected);
});
