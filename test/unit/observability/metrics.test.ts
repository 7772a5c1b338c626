import { expect, test } from "vitest";
import { Registry } from "prom-client";
import { METRIC_TABLE, type MetricSpec } from "../../../src/observability/metric-table.js";
import { createMetrics } from "../../../src/observability/metrics.js";

const specs = Object.values<MetricSpec>(METRIC_TABLE);
const UNIT = /_(seconds|bytes|ratio|versions|experiences|total)$/;

test("names are unique and follow the Prometheus conventions", () => {
  expect(new Set(specs.map((spec) => spec.name)).size).toBe(specs.length);
  for (const spec of specs) {
    expect(spec.name).toMatch(/^troupe_[a-z][a-z0-9_]*$/);
    expect(spec.name.endsWith("_total")).toBe(spec.type === "counter");
    if (spec.type === "histogram") {
      expect(spec.name).toMatch(UNIT);
      expect([...(spec.buckets ?? [])].sort((a, b) => a - b)).toEqual(spec.buckets);
    } else {
      expect(spec.buckets).toBeUndefined();
    }
    expect(spec.help).not.toBe("");
    expect(spec.healthy).not.toBe("");
  }
});

test.each(["coordinator", "rollout", "learner"] as const)(
  "a %s exports its own metrics and no others",
  async (role) => {
    const metrics = createMetrics(role, { processMetrics: false });
    const exported = metrics.registry.getMetricsAsArray().map((metric) => metric.name);
    expect(exported.sort()).toEqual(
      specs
        .filter((spec) => spec.roles.includes(role))
        .map((spec) => spec.name)
        .sort(),
    );
  },
);

test("known label values are exported at 0 before anything happened", async () => {
  const text = await createMetrics("coordinator", { processMetrics: false }).registry.metrics();
  expect(text).toContain('troupe_experiences_rejected_total{reason="duplicate"} 0');
  expect(text).toContain('troupe_workers{role="learner",state="suspect"} 0');
  expect(text).toContain("troupe_experiences_admitted_total 0");
  expect(text).toContain('troupe_iteration_phase_duration_seconds_count{phase="publish"} 0');
  expect(text).not.toContain("troupe_rpc_server_handling_seconds_count{");
});

test("counters, gauges and histograms record under their labels", async () => {
  const metrics = createMetrics("coordinator", { processMetrics: false });
  metrics.experiencesDropped.inc({ reason: "stale" }, 3);
  metrics.rewardMean.set(-1.25);
  metrics.experienceStaleness.observe(2);
  metrics.rpcHandling.observe({ method: "Heartbeat", code: "OK" }, 0.002);
  const text = await metrics.registry.metrics();
  expect(text).toContain('troupe_experiences_dropped_total{reason="stale"} 3');
  expect(text).toContain("troupe_reward_mean -1.25");
  expect(text).toContain('troupe_experience_staleness_versions_bucket{le="1"} 0');
  expect(text).toContain('troupe_experience_staleness_versions_bucket{le="2"} 1');
  expect(text).toContain(
    'troupe_rpc_server_handling_seconds_bucket{le="0.0025",method="Heartbeat",code="OK"} 1',
  );
});

test("two processes' worth of metrics do not share a registry", async () => {
  const first = createMetrics("learner", { processMetrics: false });
  const second = createMetrics("learner", { processMetrics: false });
  first.trainedTokens.inc(7);
  expect(await second.registry.metrics()).toContain("troupe_trained_tokens_total 0");
});

test("an injected registry is used, with Node's own metrics beside ours", async () => {
  const registry = new Registry();
  const metrics = createMetrics("rollout", { registry });
  expect(metrics.registry).toBe(registry);
  const text = await registry.metrics();
  expect(text).toContain("nodejs_eventloop_lag_p99_seconds");
  expect(text).toContain("process_resident_memory_bytes");
});
