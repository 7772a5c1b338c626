/** The three stages in order, each on what the one before left; a finished stage is not done again after a restart. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import type { ModelSource } from "../coordinator/model-folders.js";
import type { RunClock } from "../coordinator/run-clock.js";
import { ledgerOf } from "../coordinator/ledger-view.js";
import type { StageName } from "../config/schema.js";
import type { Ledger } from "../observability/run-status.js";
import { TroupeError } from "../shared/errors.js";
import { replaceSynced } from "../shared/synced-files.js";
import { outcomeName, planStages, STAGE_ORDER } from "./plan-stages.js";
import { runPpoStage, type PpoResult } from "./ppo.js";
import { runRewardStage } from "./reward.js";
import { ProximalPolicy } from "./proximal-policy.js";
import type { RunContext } from "./run-context.js";
import { runSftStage } from "./sft.js";

/** DIR/summary.json. */
export interface RunSummary {
  readonly sft?: { readonly evalLossBefore: number; readonly evalLossAfter: number };
  readonly reward?: { readonly heldOutAccuracy: number };
  readonly ppo?: {
    readonly heldOutReward: { readonly before: number; readonly after: number };
    readonly klToRef: number;
    readonly iterations: number;
    readonly stoppedByKlBudget: boolean;
    readonly experiences: Ledger;
  };
  readonly data: RunContext["data"]["report"];
  readonly processes: { readonly rollout: number; readonly learner: number };
  /** How long coordinators directed the run, all of its processes together; not the time between two of them. */
  readonly seconds: number;
  /** The model to use: the last stage's policy. */
  readonly model: string;
  /** Parameters and optimizer state of every trained model, in name order. */
  readonly stateSha256: string;
}

/** What a finished stage leaves for the later ones beside its model under DIR/models; kept, so that a restart finds it. */
export interface StageOutcome {
  readonly stateSha256: string;
  readonly summary: Partial<Pick<RunSummary, "sft" | "reward" | "ppo">>;
}

/** @param onPlanned called when all that the stages start from is there */
export async function runStages(
  run: RunContext,
  clock: RunClock,
  onPlanned: () => void,
): Promise<RunSummary> {
  const plan = await planStages(run);
  onPlanned();
  const outcomes = new Map<StageName, StageOutcome>();
  let policy: ModelSource | undefined;
  let reward = plan.reward;

  for (const stage of STAGE_ORDER) {
    const outcome = plan.stages.includes(stage)
      ? await run.results.remember(outcomeName(stage), async () => {
          run.logger.info(`stage ${stage} starts`);
          run.metrics.stageActive.set({ stage }, 1);
          const done = await runStage(run, stage, { base: plan.base, policy, reward });
          run.metrics.stageActive.set({ stage }, 0);
          return done;
        })
      : plan.earlier.get(stage);
    if (outcome === undefined) continue;
    // Only now: a stage that is over cannot be entered again, so what it left must be on disk first.
    run.learners.finishStage(stage);
    if (stage === "ppo") await new ProximalPolicy(run).clear();
    outcomes.set(stage, outcome);
    if (stage === "sft") policy = await run.models.adopt("models/sft", run.models.pathOf("sft"));
    if (stage === "reward") reward ??= await run.models.adopt("models/reward", run.models.pathOf("reward"));
  }

  const processes = { rollout: 0, learner: 0 };
  for (const { role } of run.directory.list()) processes[role] += 1;
  const last = (["ppo", "sft", "reward"] as const).find((stage) => outcomes.has(stage));
  const summary: RunSummary = {
    ...Object.assign({}, ...[...outcomes.values()].map((outcome) => outcome.summary)),
    data: run.data.report,
    processes,
    seconds: clock.seconds,
    model: last === undefined ? "" : run.models.pathOf(last),
    stateSha256: fingerprint(outcomes),
  };
  await replaceSynced(join(run.runDir, "summary.json"), JSON.stringify(summary, null, 2) + "\n");
  return summary;
}

async function runStage(
  run: RunContext,
  stage: StageName,
  models: { base: ModelSource; policy: ModelSource | undefined; reward: ModelSource | undefined },
): Promise<StageOutcome> {
  const { config } = run;
  switch (stage) {
    case "sft": {
      const { before, after, stateSha256 } = await runSftStage(run, models.base);
      return {
        stateSha256,
        summary: { sft: { evalLossBefore: before.eval_loss, evalLossAfter: after.eval_loss } },
      };
    }
    case "reward": {
      const start = config.reward.initFrom === "sft" ? (models.policy ?? models.base) : models.base;
      const { after, stateSha256 } = await runRewardStage(run, start);
      return { stateSha256, summary: { reward: { heldOutAccuracy: after.eval_accuracy } } };
    }
    case "ppo": {
      const { reward, policy = models.base } = models;
      if (reward === undefined) throw new TroupeError("INTERNAL", "stage ppo starts without a reward model");
      const result = await runPpoStage(run, { policy, reward });
      await writeSamples(run, result);
      const { before, after, iterations, stoppedByKlBudget, stateSha256 } = result;
      return {
        stateSha256,
        summary: {
          ppo: {
            heldOutReward: { before: before.meanScore, after: after.meanScore },
            klToRef: after.klToRef,
            iterations,
            stoppedByKlBudget,
            experiences: ledgerOf(run.host.state.durable.counts),
          },
        },
      };
    }
  }
}

/** DIR/eval-samples.jsonl: held-out prompts with their answers and scores before and after, where they have both. */
async function writeSamples(run: RunContext, { before, after }: PpoResult): Promise<void> {
  const path = join(run.runDir, "eval-samples.jsonl");
  const lines = before.prompts.map((prompt, i) => ({
    prompt,
    before: before.answers[i],
    after: after.answers[i],
    rewardBefore: before.scores[i],
    rewardAfter: after.scores[i],
  }));
  const whole = lines.filter((line) => line.before !== null && line.after !== null);
  await replaceSynced(path, whole.map((line) => JSON.stringify(line) + "\n").join(""));
}

function fingerprint(outcomes: ReadonlyMap<StageName, StageOutcome>): string {
  const hash = createHash("sha256");
  for (const [stage, { stateSha256 }] of [...outcomes].sort(([a], [b]) => (a < b ? -1 : 1)))
    hash.update(`${stage} ${stateSha256}\n`);
  return hash.digest("hex");
}
