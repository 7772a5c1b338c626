import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { METRIC_TABLE, type MetricSpec } from "../../../src/observability/metric-table.js";
import { createMetrics } from "../../../src/observability/metrics.js";
import { filesUnder, pathOf, read, readOneYaml, readYaml } from "./repository.js";

interface Rule {
  record?: string;
  alert?: string;
  expr: string;
  labels?: { severity: string };
  annotations?: { summary: string; runbook: string };
}
interface Dashboard {
  uid: string;
  templating: { list: { name: string; query: unknown }[] };
  panels: {
    id: number;
    title: string;
    type: string;
    targets?: { expr: string }[];
    gridPos: Record<"x" | "y" | "w" | "h", number>;
  }[];
}

const rules = readOneYaml<{ groups: { rules: Rule[] }[] }>("deploy/prometheus/alerts.yml").groups.flatMap(
  (group) => group.rules,
);
const alerts = rules.filter((rule) => rule.alert !== undefined);
const dashboard = JSON.parse(read("deploy/grafana/dashboards/troupe.json")) as Dashboard;
const panelExpressions = dashboard.panels.flatMap((panel) => (panel.targets ?? []).map(({ expr }) => expr));

const specs = new Map(Object.values<MetricSpec>(METRIC_TABLE).map((spec) => [spec.name as string, spec]));
const nodeMetrics = new Set(
  createMetrics("learner")
    .registry.getMetricsAsArray()
    .map((metric) => metric.name),
);
const recorded = new Set(rules.flatMap((rule) => rule.record ?? []));
/** Labels every series has from its scrape target or its bucket. */
const TARGET_LABELS = ["run_id", "worker_id", "role", "job", "instance", "le"];

/** Metric names of an expression: identifiers with our prefixes, and whatever carries a selector. */
function metricsIn(expr: string): string[] {
  const bare = expr.replaceAll(/"[^"]*"/g, '""');
  const ours = bare.match(/\b(?:troupe|nodejs|process)[a-z0-9_:]*/g) ?? [];
  const selected = [...bare.matchAll(/([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{/g)].map((match) => match[1]);
  return [...new Set([...ours, ...selected])].filter((name) => name !== "up");
}

/** The table's metric behind a series name; histograms export `_bucket`, `_sum`, `_count`. */
function specOf(series: string): MetricSpec | undefined {
  const direct = specs.get(series);
  if (direct !== undefined) return direct.type === "histogram" ? undefined : direct;
  const histogram = specs.get(series.replace(/_(bucket|sum|count)$/, ""));
  return histogram?.type === "histogram" ? histogram : undefined;
}

test.each([...rules.map((rule) => rule.expr), ...panelExpressions])(
  "expression %s uses exported metrics and labels",
  (expr) => {
    const names = metricsIn(expr);
    if (!expr.includes("up{")) expect(names.length).toBeGreaterThan(0);
    for (const name of names) {
      expect([name, specOf(name) !== undefined || nodeMetrics.has(name) || recorded.has(name)]).toEqual([
        name,
        true,
      ]);
    }
    for (const [, name, selector] of expr.matchAll(/([a-z][a-z0-9_:]*)\{([^}]*)\}/g)) {
      const labels = specOf(name)?.labels ?? {};
      for (const [, label, value] of selector.matchAll(/([a-z_]+)\s*=~?\s*"([^"]*)"/g)) {
        expect([...Object.keys(labels), ...TARGET_LABELS]).toContain(label);
        const values = labels[label];
        if (Array.isArray(values) && !value.startsWith("$")) expect(values).toContain(value);
      }
    }
    const grouped = [...expr.matchAll(/\b(?:by|on) \(([^)]*)\)/g)].flatMap((match) => match[1].split(/,\s*/));
    const known = names.flatMap((name) => Object.keys(specOf(name)?.labels ?? {}));
    for (const label of grouped) expect([...known, ...TARGET_LABELS]).toContain(label);
  },
);

test("the checker of expressions would notice a wrong name, suffix or label", () => {
  expect(specOf("troupe_kl_mean_total")).toBeUndefined();
  expect(specOf("troupe_step_duration_seconds")).toBeUndefined();
  expect(specOf("troupe_step_duration_seconds_bucket")?.name).toBe("troupe_step_duration_seconds");
  expect(metricsIn('sum by (run_id) (rate(troupe_x_total{a="troupe_no"}[5m])) > other{b="c"}')).toEqual([
    "troupe_x_total",
    "other",
  ]);
});

test("every alert has a severity, a summary and a section in the runbook", () => {
  const headings =
    read("docs/operations.md")
      .match(/^### (\w+)$/gm)
      ?.map((line) => line.slice(4)) ?? [];
  expect(alerts.map(({ alert }) => alert).sort()).toEqual([...headings].sort());
  for (const { alert, labels, annotations } of alerts) {
    expect(["critical", "warning", "info"]).toContain(labels?.severity);
    expect(annotations?.summary).toBeTruthy();
    expect(annotations?.runbook).toBe(`docs/operations.md#${alert?.toLowerCase()}`);
  }
});

test("Prometheus finds the fleet through the coordinator and lets metrics keep their own role label", () => {
  const config = readOneYaml<{
    rule_files: string[];
    scrape_configs: { honor_labels: boolean; http_sd_configs: { url: string; refresh_interval: string }[] }[];
  }>("deploy/prometheus/prometheus.yml");
  expect(config.rule_files).toEqual(["alerts.yml"]);
  const [scrape] = config.scrape_configs;
  expect(scrape.honor_labels).toBe(true);
  expect(scrape.http_sd_configs).toEqual([
    { url: "http://coordinator:9464/sd/prometheus", refresh_interval: "10s" },
  ]);
});

test("the dashboard selects by run, its panels have unique ids and do not overlap", () => {
  expect(dashboard.templating.list.map(({ name }) => name)).toEqual(["DS_PROMETHEUS", "run_id"]);
  expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length);
  const cells = dashboard.panels.flatMap(({ gridPos: { x, y, w, h } }) =>
    Array.from({ length: w * h }, (_unused, i) => `${x + (i % w)},${y + Math.floor(i / w)}`),
  );
  expect(new Set(cells).size).toBe(cells.length);
  for (const expr of panelExpressions) expect(expr).toContain('run_id="$run_id"');
});

test("every YAML file under deploy parses without errors or warnings", () => {
  const files = filesUnder("deploy").filter((file) => /\.ya?ml$/.test(file));
  expect(files.length).toBeGreaterThan(12);
  for (const file of files) expect(readYaml(file).length).toBeGreaterThan(0);
});

const hasPromtool = spawnSync("promtool", ["--version"]).status === 0;
test.skipIf(!hasPromtool)("(needs promtool) promtool accepts the rules and their tests pass", () => {
  const run = spawnSync("promtool", ["test", "rules", pathOf("deploy/prometheus/alerts.test.yml")], {
    encoding: "utf8",
  });
  expect(run.stdout + run.stderr).toContain("SUCCESS");
  expect(run.status).toBe(0);
});
