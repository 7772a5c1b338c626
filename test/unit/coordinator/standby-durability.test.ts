import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { configSchema } from "../../../src/config/schema.js";
import { openDurability } from "../../../src/coordinator/standby-durability.js";

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
  await expect(open(false)).rejects.toMatchObject({
    code: "CONFIG",
    message: expect.stringMatching(/holds a run already; continue it with --resume auto/) as string,
  });
  const again = await open(true);
  expect(again).toMatchObject({ runId: first!.runId, recovered: { epoch: 1 } });
  await again!.log.close();
  rmSync(runDir, { recursive: true });
});
