// `npm run test:gpu`: the suites that need a GPU or a native library, then one line per thing that could not run here.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildIfStale } from "../../scripts/build.mjs";

const SUITES = ["test/gpu", "test/unit/engine/conformance.test.ts", "test/unit/engine/kernels.test.ts"];

process.chdir(fileURLToPath(new URL("../..", import.meta.url)));
await buildIfStale();
const folder = mkdtempSync(join(tmpdir(), "troupe-test-gpu-"));
const report = join(folder, "report.json");
const vitest = ["node_modules/vitest/vitest.mjs", "run", ...SUITES, ...process.argv.slice(2)];
const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
const { status } = spawnSync(process.execPath, [...vitest, ...reporters], { stdio: "inherit" });

const results = existsSync(report) ? JSON.parse(readFileSync(report, "utf8")) : undefined;
rmSync(folder, { recursive: true, force: true });
if (results === undefined) {
  console.error("no test report was written");
  process.exit(1);
}
const tests = results.testResults.flatMap((file) => file.assertionResults);
const withStatus = (...kinds) => tests.filter((test) => kinds.includes(test.status));
const skipped = withStatus("pending", "skipped");
for (const { ancestorTitles, title } of skipped)
  console.log(`skipped: ${[...ancestorTitles, title].join(" › ")}`);
console.log(
  `${withStatus("passed").length} passed, ${withStatus("failed").length} failed, ${skipped.length} skipped`,
);
process.exit(status ?? 1);
