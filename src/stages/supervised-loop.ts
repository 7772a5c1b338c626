/** The loop that sft and reward share: epochs of minibatches, one optimizer step each, checkpoints on the way. */
import { epochOrder, groupsOf, minibatches } from "../data/batches.js";
import { hasAdapters, type ModelSource } from "../coordinator/model-folders.js";
import type { StepInputs, StepRequest } from "../coordinator/optimizer-steps.js";
import { roundRequest } from "../coordinator/round-manifest.js";
import type { OptimizerConfig } from "../config/schema.js";
import type { RunShape } from "../learner/packing.js";
import { packablesOf } from "../learner/run-shapes.js";
import { learningRateAt } from "../rl/schedule.js";
import type { MicroShard, ShardRows } from "../rpc/codec/shard.js";
import { cutMicroShards, shardCountOf } from "./micro-shards.js";
import type { RunContext } from "./run-context.js";
import { shapesOfStage, SAMPLED_SHARDS } from "./run-shapes.js";

/** sft and reward checkpoints are counted in steps; one "iteration" of the checkpoint interval is this many. */
const STEPS_PER_CHECKPOINT_UNIT = 100;
const EVAL_ROWS_PER_SHARD = 16;

export interface SupervisedStage<Row> {
  readonly stage: "sft" | "reward";
  readonly rows: readonly Row[];
  readonly heldOut: readonly Row[];
  readonly epochs: number;
  readonly batchSize: number;
  readonly optimizer: OptimizerConfig;
  readonly model: ModelSource;
  readonly head: "lm" | "scalar";
  readonly lengthOf: (row: Row) => number;
  readonly wrap: (rows: readonly Row[]) => ShardRows;
  /** What the loss is divided by: counted tokens (sft) or pairs (reward) of the minibatch. */
  readonly denominatorOf: (rows: readonly Row[]) => number;
  /** Numbers of one step, from the sums over its minibatch. */
  readonly stepMetrics: (
    sums: Readonly<Record<string, number>>,
    denominator: number,
  ) => Record<string, number>;
  /** Numbers over all held-out rows. */
  readonly evalMetrics: (rows: Readonly<Record<string, Float64Array>>) => Record<string, number>;
}

export interface SupervisedResult {
  readonly before: Readonly<Record<string, number>>;
  readonly after: Readonly<Record<string, number>>;
  readonly model: ModelSource;
  readonly directory: string;
  readonly stateSha256: string;
}

export async function runSupervisedStage<Row>(
  run: RunContext,
  stage: SupervisedStage<Row>,
): Promise<SupervisedResult> {
  const { learners, bus, checkpointer, host } = run;
  const { stage: name } = stage;
  const startedMs = performance.now();
  const steps = new SupervisedSteps(run, stage);
  const runShapes = await steps.runShapes();
  learners.startStage({
    stage: name,
    runShapes,
    models: [{ ...stage.model, role: "model", head: stage.head }],
    tokenizer: run.tokens,
    checkpointState: (checkpointId) => checkpointer.stateOf(checkpointId),
    materialize: async (_ids, _input, step, shardCount) => steps.inputsOf(step, shardCount),
  });

  const { stage: openStage, finishedStep } = host.state.durable;
  const firstStep = openStage === name ? finishedStep + 1 : 1;
  bus.publish({
    type: "stage-started",
    stage: name,
    unit: "step",
    totalUnits: steps.total,
    completedUnits: steps.doneBefore(firstStep),
  });
  const before = await run.results.remember(`${name}.before`, () => evaluate(run, stage));
  for (let step = firstStep; steps.doneBefore(step) < steps.total; step++) {
    const done = await performStep(run, stage, steps, step);
    await saveIfDue(run, stage, step, { before: steps.doneBefore(step), done, total: steps.total });
  }

  const after = await evaluate(run, stage);
  const saved = await saveModel(run, stage);
  bus.publish({
    type: "stage-finished",
    stage: name,
    elapsedMs: performance.now() - startedMs,
    metrics: after,
  });
  return { before, after, ...saved };
}

/** The optimizer steps of the stage: which rows each takes, and which of them make one step of the run. */
class SupervisedSteps<Row> {
  /** Optimizer steps of the whole stage. */
  readonly total: number;
  private readonly stepsPerEpoch: number;
  private readonly shardCount: number;
  /** Optimizer steps (of every learner, when they average parameters) that make one step of the run. */
  private readonly every: number;
  /** Row numbers of the last epoch that was asked for: shuffling it anew for each step takes 0.1 s a million rows. */
  private drawn: { readonly epoch: number; readonly batches: readonly Int32Array[] } | undefined;

  constructor(
    private readonly run: RunContext,
    private readonly stage: SupervisedStage<Row>,
  ) {
    this.stepsPerEpoch = Math.floor(stage.rows.length / stage.batchSize);
    this.total = this.stepsPerEpoch * stage.epochs;
    this.shardCount = shardCountOf(stage.batchSize, run.config.cluster.microShards);
    this.every = run.learners.minibatchesPerStep;
  }

  /** Optimizer steps finished before a step of the run. @param step from 1 */
  doneBefore(step: number): number {
    return Math.min((step - 1) * this.every, this.total);
  }

  /** The minibatches of a step of the run. */
  minibatchesOf(step: number): Row[][] {
    const first = this.doneBefore(step);
    return Array.from({ length: this.doneBefore(step + 1) - first }, (_, i) => this.minibatch(first + i + 1));
  }

  requestOf(step: number): StepRequest {
    const { shardCount } = this;
    const request = { step, experienceIds: [], input: null, shardCount, isFinalUse: true };
    if (!this.run.learners.averagesParameters) return request;
    const first = this.doneBefore(step);
    const count = this.doneBefore(step + 1) - first;
    return roundRequest(new Array<StepRequest>(count).fill(request), step, first + 1);
  }

  /** @param optimizerStep from 1 @param shardCount the manifest's */
  inputsOf(optimizerStep: number, shardCount: number): StepInputs {
    const { stage } = this;
    const batch = this.minibatch(optimizerStep);
    const parts = cutMicroShards(batch, shardCount, stage.lengthOf);
    return {
      shards: parts.map((part, index): MicroShard => ({ index, rows: stage.wrap(part) })),
      denominator: stage.denominatorOf(batch),
      ptxDenominator: 0,
      learningRates: { model: this.learningRate(optimizerStep) },
    };
  }

  /** Shapes of program runs that suit minibatches from all over the first epoch, and what is held out. */
  runShapes(): Promise<RunShape[]> {
    const { stage, run } = this;
    const count = Math.min(this.stepsPerEpoch, Math.ceil(SAMPLED_SHARDS / this.shardCount));
    const trained = Array.from({ length: count }, (_, i) =>
      this.inputsOf(1 + Math.floor((i * this.stepsPerEpoch) / count), this.shardCount),
    ).flatMap(({ shards }) => shards.map(({ rows }) => rows));
    const heldOut = groupsOf(stage.heldOut, EVAL_ROWS_PER_SHARD).map(stage.wrap);
    const longest = [...stage.rows, ...stage.heldOut].reduce(
      (most, row) => Math.max(most, stage.lengthOf(row)),
      1,
    );
    const model = { ...stage.model, head: stage.head };
    const sample = [...trained, ...heldOut.slice(0, SAMPLED_SHARDS)].map(packablesOf);
    return shapesOfStage(run.config, stage.stage, model, sample, longest);
  }

  /** @param optimizerStep from 1 */
  learningRate(optimizerStep: number): number {
    return learningRateAt(this.stage.optimizer, optimizerStep - 1, this.total);
  }

  private minibatch(optimizerStep: number): Row[] {
    const { rows, batchSize, stage: name } = this.stage;
    const epoch = Math.floor((optimizerStep - 1) / this.stepsPerEpoch);
    if (this.drawn?.epoch !== epoch) {
      const order = epochOrder(rows.length, name, this.run.config.seed, epoch);
      this.drawn = { epoch, batches: minibatches(order, batchSize) };
    }
    const indices = this.drawn.batches[(optimizerStep - 1) % this.stepsPerEpoch];
    return Array.from(indices, (index) => rows[index]);
  }
}

/** Means over all held-out rows; none without any. */
async function evaluate<Row>(
  { learners, signal }: RunContext,
  stage: SupervisedStage<Row>,
): Promise<Record<string, number>> {
  if (stage.heldOut.length === 0) return {};
  const shards = groupsOf(stage.heldOut, EVAL_ROWS_PER_SHARD).map((part, index) => ({
    index,
    rows: stage.wrap(part),
  }));
  return stage.evalMetrics(await learners.evaluate(shards, signal));
}

/** One step of the run, told to whoever watches. @returns optimizer steps finished after it */
async function performStep<Row>(
  { learners, metrics, bus, signal }: RunContext,
  stage: SupervisedStage<Row>,
  steps: SupervisedSteps<Row>,
  step: number,
): Promise<number> {
  const startedMs = performance.now();
  const result = await learners.step(steps.requestOf(step), signal);
  const done = steps.doneBefore(step + 1);
  const batches = steps.minibatchesOf(step);
  const seconds = (performance.now() - startedMs) / 1000;
  const total = (of: (batch: Row[]) => number) => batches.reduce((sum, batch) => sum + of(batch), 0);
  const tokens = total((batch) => batch.reduce((sum, row) => sum + stage.lengthOf(row), 0));
  const trainedShare = result.minibatches / batches.length;
  const numbers: Record<string, number> = {
    ...stage.stepMetrics(
      mapValues(result.sums, (sum) => sum / result.minibatches),
      total(stage.denominatorOf) / batches.length,
    ),
    grad_norm: learners.gradientNorms.model ?? NaN,
    lr: steps.learningRate(done),
    "perf/allreduce_seconds": result.allReduceMs / 1000,
    "perf/tokens_per_second": (tokens * trainedShare) / seconds,
  };
  metrics.optimizerStep.set(done);
  metrics.stageLoss.set({ stage: stage.stage }, numbers.loss);
  bus.publish({
    type: "progress",
    stage: stage.stage,
    completedUnits: done,
    totalUnits: steps.total,
    metrics: numbers,
  });
  return done;
}

/** A checkpoint after every so many optimizer steps, but none at the end, where the model itself is written. */
async function saveIfDue<Row>(
  { config, checkpointer }: RunContext,
  { stage, model, head }: SupervisedStage<Row>,
  step: number,
  { before, done, total }: { readonly before: number; readonly done: number; readonly total: number },
): Promise<void> {
  const interval = config.checkpoint.everyIterations * STEPS_PER_CHECKPOINT_UNIT;
  if (interval === 0 || done >= total) return;
  if (Math.floor(done / interval) === Math.floor(before / interval)) return;
  await checkpointer.save({ stage, step, completedUnits: done, resume: null, model, role: "model", head });
}

async function saveModel<Row>(
  { config, learners, models, signal }: RunContext,
  { stage: name, model: source, head }: SupervisedStage<Row>,
): Promise<Pick<SupervisedResult, "model" | "directory" | "stateSha256">> {
  const { artifacts, stateSha256 } = await learners.publish(
    [
      { what: "model:model", artifactName: `${name}/final` },
      ...(hasAdapters(config) ? [{ what: "adapter:model", artifactName: `${name}/adapter` }] : []),
    ],
    signal,
  );
  const directory = await models.save(name, source, head, artifacts[0].localPath);
  if (hasAdapters(config)) await models.saveAdapter(name, source, artifacts[1].localPath);
  const model = await models.adopt(`models/${name}`, directory);
  return { model, directory, stateSha256 };
}

const mapValues = (
  values: Readonly<Record<string, number>>,
  map: (value: number) => number,
): Record<string, number> =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, map(value)]));
