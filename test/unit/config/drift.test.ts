import { expect, it } from "vitest";
import { refuseDrift } from "../../../src/config/drift.js";
import { parseConfig } from "../../../src/config/load.js";

const config = (...sets: string[]) => parseConfig({ text: "data: {path: /rows.jsonl}", sets }).config;
const nats = 'cluster.durable={type: nats, servers: ["127.0.0.1:4222"]}';
const drift = (now: string[], was: string[] = []) => {
  refuseDrift(JSON.parse(JSON.stringify(config(...was))), config(...now), "its journal");
};

it.each([
  "cluster.sync=parameters",
  "cluster.syncEvery=8",
  "cluster.microShards=4",
  "cluster.wire=bf16",
  "cluster.promptsPerTask=4",
  "cluster.outerMomentum=0.9",
  "engine.name=reference",
  "engine.threads=2",
  "engine.microBatchTokens=512",
  "engine.frozenWeights=int8",
  "generation.slots=8",
  "eval.prompts=8",
  "ppo.lam=0.5",
  "data.path=/other.jsonl",
  "seed=9",
  nats,
])("%s changes what a run computes, or loses what it has computed", (set) => {
  const [field] = set.split("=");
  expect(() => drift([set])).toThrow(
    new RegExp(`its journal[^]*${field.replace(".", "\\.")}[^]*--allow-drift`),
  );
});

it.each([
  ["name=other"],
  ["stages=[ppo]"],
  ["checkpoint.everyIterations=0", "checkpoint.keepLast=5", "eval.samples=1"],
  ["cluster.rollouts=7", "cluster.learners=5", "cluster.minLearners=2"],
  ["cluster.host=::1", "cluster.port=7070", "cluster.tokenFile=/token", "cluster.bulkPort=7071"],
  [
    "cluster.leaseTtlMs=20000",
    "cluster.stepTimeoutMs=90000",
    "cluster.drainTimeoutMs=9000",
    "cluster.allReduce=star",
  ],
])("%s may change", (...sets) => {
  expect(() => drift(sets)).not.toThrow();
});

it("servers of NATS may move, but the name that finds the run's streams may not change", () => {
  const moved = 'cluster.durable={type: nats, servers: ["127.0.0.1:4223"], replicas: 3, leaseTtlMs: 9000}';
  expect(() => drift([moved], [nats])).not.toThrow();
  expect(() => drift(["name=other", nats], [nats])).toThrow(/name: was "run", is now "other"/);
  const named = nats.replace("}", ", run: mine}");
  expect(() => drift(["name=other", named], [named])).not.toThrow();
});

it("a field that the release before did not know has its default", () => {
  const { threads: _, ...engine } = config().engine;
  const was = { ...config(), engine };
  expect(() => refuseDrift(was, config(), "its journal")).not.toThrow();
  expect(() => refuseDrift(was, config("engine.threads=2"), "its journal")).toThrow(/engine\.threads/);
});
