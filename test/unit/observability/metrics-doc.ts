import { format, resolveConfig } from "prettier";
import { METRIC_TABLE, type MetricSpec } from "../../../src/observability/metric-table.js";
import { RUN_RECORDS, type RunRecordSpec } from "../../../src/observability/run-records.js";

const INTRODUCTION = `# Metrics

Every process answers \`GET /metrics\` in the Prometheus text format; the coordinator's \`GET /sd/prometheus\` lists all
of them for Prometheus' HTTP service discovery, which adds the labels \`role\`, \`worker_id\` and \`run_id\`. Every
process also exports Node's own \`process_*\` and \`nodejs_*\` metrics (event-loop lag, heap, file descriptors).

The tables below are rendered from \`src/observability/metric-table.ts\` and \`src/observability/run-records.ts\`. After
changing those, run \`npx vitest run test/unit/observability/metrics-doc.test.ts -u\`; a test fails while they differ.
`;

const RECORDS = `
## Run records

The numbers of each step or iteration, in \`metrics.jsonl\` and in TensorBoard. In ppo they carry TRL's names where TRL
has one; in sft and reward TensorBoard shows them under the stage (\`sft/loss\`). A stage's last numbers are under
\`final/<stage>/\`. In \`metrics.jsonl\` a non-finite number is the string \`"NaN"\`, \`"Infinity"\` or \`"-Infinity"\`; after a
resume, of two lines with the same stage and unit the later one counts.
`;

/** docs/metrics.md as the tables say it must be. */
export async function renderMetricsDoc(): Promise<string> {
  const metricRows = Object.values<MetricSpec>(METRIC_TABLE).map((spec) => [
    `\`${spec.name}\``,
    spec.type,
    spec.roles.length === 3 ? "all" : spec.roles.join(", "),
    labelText(spec),
    spec.help,
    spec.healthy,
  ]);
  const recordRows = Object.entries<RunRecordSpec>(RUN_RECORDS).map(([name, spec]) => [
    `\`${name}\``,
    spec.stages.join(", "),
    spec.help,
    spec.healthy,
  ]);
  const text = [
    INTRODUCTION,
    "## Prometheus metrics\n",
    table(["metric", "type", "role", "labels", "what it counts", "healthy"], metricRows),
    RECORDS,
    table(["name", "stages", "what it is", "healthy"], recordRows),
  ].join("\n");
  return format(text, { ...(await resolveConfig("docs/metrics.md")), parser: "markdown" });
}

function labelText(spec: MetricSpec): string {
  return Object.entries(spec.labels ?? {})
    .map(([label, values]) => (values === "open" ? label : `${label} (${values.join(", ")})`))
    .join("; ");
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return `${[line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n")}\n`;
}
