import { expect, test } from "vitest";
import { createMetrics } from "../../../src/observability/metrics.js";
import { EventBus } from "../../../src/observability/progress.js";
import { exportRun } from "../../../src/observability/run-metrics.js";
import type { RunStatus, WorkerStatus } from "../../../src/observability/run-status.js";

const worker = (workerId: string, state: WorkerStatus["state"]): WorkerStatus => ({
  workerId,
  role: workerId.startsWith("rollout") ? "rollout" : "learner",
  state,
  host: "h",
  pid: 1,
  metricsAddress: "",
  activity: "",
  policyVersion: 2,
  restarts: 0,
  lastHeartbeatAgeMs: 0,
});

const STATUS: RunStatus = {
  runId: "run-1",
  name: "tiny",
  version: "0.1.0",
  stage: "ppo",
  unit: "iteration",
  completedUnits: 3,
  totalUnits: 50,
  optimizerStep: 6,
  isPaused: true,
  policyVersion: 3,
  generation: 4,
  coordinatorEpoch: 2,
  elapsedMs: 1000,
  ledger: {
    admitted: 100,
    trained: 80,
    dropped: 5,
    buffered: 15,
    droppedByReason: { stale: 5 },
    inFlight: 7,
    trainedByStaleness: { 0: 1 },
    refusedByReason: { poison: 2 },
  },
  workers: [worker("rollout-0", "alive"), worker("rollout-1", "alive"), worker("learner-0", "suspect")],
  limits: { requiredWorkers: { rollout: 1, learner: 2 }, bufferExperiences: 128, stalenessVersions: 1 },
};

function start(status = STATUS) {
  const metrics = createMetrics("coordinator", { processMetrics: false });
  const events = new EventBus({ now: () => 5_000 });
  let current = status;
  const refresh = exportRun(metrics.registry, { status: async () => current, events });
  const scrape = async () => {
    await refresh();
    return metrics.registry.metrics();
  };
  return { metrics, events, scrape, setStatus: (next: RunStatus) => void (current = next) };
}

test("a scrape shows the status: position, workers by role and state, limits", async () => {
  const text = await start().scrape();
  for (const line of [
    'troupe_run_info{run="tiny"} 1',
    "troupe_policy_version 3",
    "troupe_generation 4",
    "troupe_coordinator_epoch 2",
    "troupe_learning_paused 1",
    'troupe_workers{role="rollout",state="alive"} 2',
    'troupe_workers{role="learner",state="alive"} 0',
    'troupe_workers{role="learner",state="suspect"} 1',
    'troupe_workers_required{role="learner"} 2',
    "troupe_buffer_capacity_experiences 128",
    "troupe_staleness_limit_versions 1",
    "troupe_experiences_in_flight 7",
  ]) {
    expect(text.split("\n")).toContain(line);
  }
});

test("the ledger's counters are the run's totals, however often they are read or counted elsewhere", async () => {
  const { metrics, scrape, setStatus } = start();
  await scrape();
  metrics.experiencesAdmitted.inc(7);
  setStatus({ ...STATUS, ledger: { ...STATUS.ledger, admitted: 110, buffered: 25 } });
  await scrape();
  const lines = (await scrape()).split("\n");
  expect(lines).toContain("troupe_experiences_admitted_total 110");
  expect(lines).toContain("troupe_experiences_trained_total 80");
  expect(lines).toContain('troupe_experiences_dropped_total{reason="stale"} 5');
  expect(lines).toContain('troupe_experiences_dropped_total{reason="skippedStep"} 0');
  expect(lines).toContain('troupe_experiences_abandoned_total{reason="poison"} 2');
  expect(lines).toContain("troupe_buffer_experiences 25");
});

test("progress, checkpoint and restart events set their gauges and counters", async () => {
  const { events, scrape } = start();
  const metrics = { "objective/kl": 2.5, "policy/clipfrac_avg": 0.25, "value/grad_norm": 3, lr: 1e-4 };
  events.publish({ type: "progress", stage: "ppo", completedUnits: 9, totalUnits: 50, metrics });
  events.publish({
    type: "checkpoint",
    stage: "ppo",
    completedUnits: 9,
    path: "/tmp/x",
    bytes: 77,
    elapsedMs: 250,
  });
  const again = {
    type: "worker-restarted",
    role: "learner",
    workerId: "learner-0",
    pid: 1,
    host: "h",
    port: 1,
  } as const;
  events.publish({ ...again, restarts: 1, reason: "killed by SIGKILL" });
  events.publish({ ...again, restarts: 2, reason: "registered again" });
  const lines = (await scrape()).split("\n");
  for (const line of [
    "troupe_iteration 9",
    "troupe_kl_mean 2.5",
    "troupe_policy_clip_ratio 0.25",
    'troupe_grad_norm{model="critic"} 3',
    'troupe_learning_rate{model="actor"} 0.0001',
    "troupe_checkpoint_bytes 77",
    "troupe_checkpoint_last_success_timestamp_seconds 5",
    'troupe_worker_restarts_total{role="learner",reason="signal"} 1',
    'troupe_worker_restarts_total{role="learner",reason="lease"} 1',
  ]) {
    expect(lines).toContain(line);
  }
  expect(Number(/^troupe_run_dir_free_bytes (\S+)$/m.exec(lines.join("\n"))?.[1])).toBeGreaterThan(0);
});
