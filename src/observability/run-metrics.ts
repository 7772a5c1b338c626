/**
 * Fills the coordinator's metrics that follow from what it tells anyway: the status (read at every scrape) and the
 * progress events. The ledger's counters are set to the run's own totals, so that after a restart of the coordinator
 * they go on where they were and still balance.
 */
import { statfsSync } from "node:fs";
import { dirname } from "node:path";
import { Counter, Gauge, type Registry } from "prom-client";
import { METRIC_TABLE, type MetricKeyOf } from "./metric-table.js";
import type { EventBus, MetricsRecord, ProgressStage, PublishedEvent } from "./progress.js";
import type { RunStatus } from "./run-status.js";

type Key = MetricKeyOf<"coordinator">;
type Labels = Readonly<Record<string, string>>;

/** Run record → gauge, in ppo. */
const PPO_GAUGES: readonly (readonly [string, Key, Labels?])[] = [
  ["objective/scores", "rewardMean"],
  ["objective/kl", "klMean"],
  ["objective/kl_coef", "klCoef"],
  ["policy/approxkl_avg", "approxKl"],
  ["policy/clipfrac_avg", "policyClip"],
  ["policy/importance_avg", "importanceWeight"],
  ["policy/importance_ess", "importanceEss"],
  ["policy/importance_capped", "importanceCapped"],
  ["policy/entropy_avg", "entropy"],
  ["policy/grad_norm", "gradNorm", { model: "actor" }],
  ["value/grad_norm", "gradNorm", { model: "critic" }],
  ["loss/policy_avg", "policyLoss"],
  ["loss/value_avg", "valueLoss"],
  ["val/clipfrac_avg", "valueClip"],
  ["val/response_tokens", "responseTokens"],
  ["val/eos_ratio", "eos"],
  ["lr", "learningRate", { model: "actor" }],
  ["critic_lr", "learningRate", { model: "critic" }],
];

const SUPERVISED_GAUGES: readonly (readonly [string, Key, Labels?])[] = [
  ["grad_norm", "gradNorm", { model: "actor" }],
  ["lr", "learningRate", { model: "actor" }],
];

/**
 * @param registry of `createMetrics("coordinator")`; metrics it does not hold are left out
 * @returns call it before rendering; settles when the metrics show what is on disk
 */
export function exportRun(
  registry: Registry,
  run: { readonly status: () => Promise<RunStatus>; readonly events: EventBus },
): () => Promise<void> {
  const gauge = (key: Key, value: number, labels: Labels = {}) => {
    const metric = registry.getSingleMetric(METRIC_TABLE[key].name);
    if (metric instanceof Gauge) metric.set(labels, value);
  };
  const total = (key: Key, value: number, labels: Labels = {}) => {
    const metric = registry.getSingleMetric(METRIC_TABLE[key].name);
    if (!(metric instanceof Counter)) return;
    metric.remove(labels);
    metric.inc(labels, value);
  };
  const event = (key: Key, labels: Labels = {}) => {
    const metric = registry.getSingleMetric(METRIC_TABLE[key].name);
    if (metric instanceof Counter) metric.inc(labels);
  };

  const record = (stage: ProgressStage, metrics: MetricsRecord) => {
    const mapping = stage === "ppo" ? PPO_GAUGES : SUPERVISED_GAUGES;
    for (const [name, key, labels] of mapping) {
      if (metrics[name] !== undefined) gauge(key, metrics[name], labels);
    }
  };
  const onEvent = (published: PublishedEvent) => {
    switch (published.type) {
      case "progress":
        record(published.stage, published.metrics);
        if (published.stage === "ppo") gauge("iteration", published.completedUnits);
        return;
      case "stage-finished":
        if (published.metrics["eval_accuracy"] !== undefined) {
          gauge("rewardAccuracy", published.metrics["eval_accuracy"]);
        }
        return;
      case "checkpoint":
        gauge("checkpointBytes", published.bytes);
        gauge("checkpointLastSuccess", published.timeMs / 1000);
        gauge("runDirFreeBytes", freeBytes(dirname(published.path)));
        return;
      case "worker-restarted":
        return event("workerRestarts", { role: published.role, reason: causeOf(published.reason) });
      default:
        return;
    }
  };
  run.events.subscribe(onEvent, { after: 0 });

  return async () => {
    const status = await run.status();
    gauge("runInfo", 1, { run: status.name });
    gauge("policyVersion", status.policyVersion);
    gauge("optimizerStep", status.optimizerStep);
    gauge("generation", status.generation);
    gauge("coordinatorEpoch", status.coordinatorEpoch);
    gauge("learningPaused", status.isPaused ? 1 : 0);
    for (const role of ["rollout", "learner"] as const) {
      for (const state of ["alive", "suspect", "draining"] as const) {
        const count = status.workers.filter(
          (worker) => worker.role === role && worker.state === state,
        ).length;
        gauge("workers", count, { role, state });
      }
      gauge("workersRequired", status.limits?.requiredWorkers[role] ?? 0, { role });
    }
    const { ledger, limits } = status;
    total("experiencesAdmitted", ledger.admitted);
    total("experiencesTrained", ledger.trained);
    for (const [reason, count] of Object.entries(ledger.droppedByReason)) {
      total("experiencesDropped", count, { reason });
    }
    for (const [reason, count] of Object.entries(ledger.refusedByReason)) {
      total("experiencesAbandoned", count, { reason });
    }
    gauge("bufferExperiences", ledger.buffered);
    gauge("experiencesInFlight", ledger.inFlight);
    gauge("bufferCapacityExperiences", limits?.bufferExperiences ?? 0);
    gauge("stalenessLimit", limits?.stalenessVersions ?? 0);
  };
}

/** The label of a restart's reason: how the previous process ended. */
function causeOf(reason: string): string {
  if (/\boom\b|out of memory|137|134/i.test(reason)) return "oom";
  if (/signal|SIG[A-Z]+/.test(reason)) return "signal";
  return /exit/i.test(reason) ? "exit" : "lease";
}

function freeBytes(folder: string): number {
  try {
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize;
  } catch {
    return NaN; // the folder is gone; a NaN compares with nothing, so no alert fires on it
  }
}
