// `npm test`: build once, run the vitest suite, end with one plain line "N passed, N failed[, N skipped]".
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildIfStale } from "./build.mjs";

await buildIfStale();
const folder = mkdtempSync(join(tmpdir(), "troupe-test-"));
const report = join(folder, "report.json");
const run = spawnSync(
  process.execPath,
  [
    "node_modules/vitest/vitest.mjs",
    "run",
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
    ...process.argv.slice(2),
  ],
  { stdio: "inherit" },
);
let failed = 1;
try {
  const result = JSON.parse(readFileSync(report, "utf8"));
  failed =
    result.numFailedTests +
    result.testResults.filter((f) => f.status === "failed" && f.assertionResults.length === 0).length;
  const skipped = result.numPendingTests + (result.numTodoTests ?? 0);
  console.log(
    `${result.numPassedTests} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`,
  );
} catch (error) {
  console.error(`no test report was written: ${error.message}`);
  console.log("0 passed, 1 failed");
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit(run.status !== 0 || failed > 0 ? 1 : 0);
