import { expect, test } from "vitest";
import { METRIC_TABLE } from "../../../src/observability/metric-table.js";
import { renderMetricsDoc } from "./metrics-doc.js";

test("docs/metrics.md lists exactly the metrics and run records of the tables", async () => {
  await expect(await renderMetricsDoc()).toMatchFileSnapshot("../../../docs/metrics.md");
});

test("the rendered document has one line per metric", async () => {
  const lines = (await renderMetricsDoc()).split("\n");
  for (const spec of Object.values(METRIC_TABLE)) {
    expect(lines.filter((line) => line.startsWith(`| \`${spec.name}\` `))).toHaveLength(1);
  }
});
