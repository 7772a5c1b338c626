/**
 * The metrics of one process, typed from the metric table: `createMetrics("learner")` has only a learner's metrics,
 * label names and values are checked by the compiler, and each process owns its registry (none is global).
 */
import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from "prom-client";
import { packageVersion } from "../shared/paths.js";
import {
  METRIC_TABLE,
  type MetricKey,
  type MetricKeyOf,
  type MetricSpec,
  type MetricTable,
} from "./metric-table.js";
import type { ProcessRole } from "../shared/roles.js";

type LabelSet<S> = S extends { labels: infer L }
  ? { readonly [K in keyof L]: L[K] extends readonly (infer V)[] ? V : string }
  : undefined;

interface PlainCounter {
  inc(value?: number): void;
}
interface LabelledCounter<L> {
  inc(labels: L, value?: number): void;
}
interface PlainGauge {
  set(value: number): void;
  inc(value?: number): void;
  dec(value?: number): void;
}
interface LabelledGauge<L> {
  set(labels: L, value: number): void;
  inc(labels: L, value?: number): void;
  dec(labels: L, value?: number): void;
}
interface PlainHistogram {
  observe(value: number): void;
}
interface LabelledHistogram<L> {
  observe(labels: L, value: number): void;
}

/** How a metric of the table is used: counters `inc`, gauges `set`, histograms `observe`, labels first. */
export type MetricHandle<S extends MetricSpec> = S["type"] extends "counter"
  ? LabelSet<S> extends undefined
    ? PlainCounter
    : LabelledCounter<LabelSet<S>>
  : S["type"] extends "gauge"
    ? LabelSet<S> extends undefined
      ? PlainGauge
      : LabelledGauge<LabelSet<S>>
    : LabelSet<S> extends undefined
      ? PlainHistogram
      : LabelledHistogram<LabelSet<S>>;

export type Metrics<R extends ProcessRole = ProcessRole> = {
  readonly [K in MetricKeyOf<R>]: MetricHandle<MetricTable[K]>;
} & {
  readonly registry: Registry;
};

export interface MetricsOptions {
  /** Where to register. @default a new registry */
  readonly registry?: Registry;
  /** Also export Node's and the process's own metrics (`process_*`, `nodejs_*`). @default true */
  readonly processMetrics?: boolean;
}

/** Registers the metrics of a role and sets the build's. Every label combination whose values are all known starts at 0. */
export function createMetrics<R extends ProcessRole>(role: R, options: MetricsOptions = {}): Metrics<R> {
  const registry = options.registry ?? new Registry();
  const handles: Record<string, unknown> = { registry };
  for (const key of Object.keys(METRIC_TABLE) as MetricKey[]) {
    const spec: MetricSpec = METRIC_TABLE[key];
    if (spec.roles.includes(role)) handles[key] = register(spec, registry);
  }
  (handles as Metrics<R> & Metrics).buildInfo.set(
    { version: packageVersion, node: process.versions.node },
    1,
  );
  if (options.processMetrics ?? true) collectDefaultMetrics({ register: registry });
  return handles as Metrics<R>;
}

function register(spec: MetricSpec, registry: Registry): Counter | Gauge | Histogram {
  const labelNames = Object.keys(spec.labels ?? {});
  const base = { name: spec.name, help: spec.help, labelNames, registers: [registry] };
  const startingLabels = knownLabelSets(spec);
  switch (spec.type) {
    case "counter": {
      const counter = new Counter(base);
      for (const labels of startingLabels) counter.inc(labels, 0);
      return counter;
    }
    case "gauge": {
      const gauge = new Gauge(base);
      for (const labels of startingLabels) gauge.set(labels, 0);
      return gauge;
    }
    case "histogram": {
      const histogram = new Histogram({ ...base, buckets: [...(spec.buckets ?? [])] });
      for (const labels of startingLabels) histogram.zero(labels);
      return histogram;
    }
    default:
      return spec.type satisfies never;
  }
}

/** Every combination of known label values; none when a label is open, one empty set when there are no labels. */
function knownLabelSets(spec: MetricSpec): Record<string, string>[] {
  let sets: Record<string, string>[] = [{}];
  for (const [label, values] of Object.entries(spec.labels ?? {})) {
    if (values === "open") return [];
    sets = sets.flatMap((set) => values.map((value) => ({ ...set, [label]: value })));
  }
  return sets;
}
