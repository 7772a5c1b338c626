/**
 * What a run will do, settled before anything is trained: which stages run, which are already done in this run
 * directory, and the models they start from. A run that could not reach its end stops here.
 */
import type { ModelSource } from "../coordinator/model-folders.js";
import type { StageName } from "../config/schema.js";
import { configError } from "../shared/errors.js";
import { admitModel } from "./admit-model.js";
import type { RunContext } from "./run-context.js";
import type { StageOutcome } from "./run-stages.js";

export interface StagePlan {
  /** Stages to run, in order. Some may turn out to be done when a run is continued. */
  readonly stages: readonly StageName[];
  /** Stages that earlier commands finished in this run directory and that are not asked for now. */
  readonly earlier: ReadonlyMap<StageName, StageOutcome>;
  /** The model everything starts from. */
  readonly base: ModelSource;
  /** The user's own reward model; undefined without `reward.path`. */
  readonly reward: ModelSource | undefined;
}

export const STAGE_ORDER: readonly StageName[] = ["sft", "reward", "ppo"];

export const outcomeName = (stage: StageName): string => `${stage}.outcome`;

/** @throws {TroupeError} CONFIG or DATA when a stage could not start */
export async function planStages(run: RunContext): Promise<StagePlan> {
  const { config, results, models } = run;
  const stages = stagesOf(config);
  const earlier = new Map<StageName, StageOutcome>();
  for (const stage of STAGE_ORDER) {
    if (config.stages.includes(stage)) continue;
    const outcome = await results.recall<StageOutcome>(outcomeName(stage));
    if (outcome !== undefined) earlier.set(stage, outcome);
  }
  checkModels(run, stages, earlier);
  checkRows(run, stages);
  const { path } = config.model;
  const base =
    path === null
      ? models.fresh()
      : await admitModel(run, { name: "base", field: "model.path", directory: path, head: "lm" });
  const reward =
    config.reward.path === null
      ? undefined
      : await admitModel(run, {
          name: "reward-model",
          field: "reward.path",
          directory: config.reward.path,
          head: "scalar",
        });
  return { stages, earlier, base, reward };
}

/** The stages a config asks for; a ready reward model takes the place of training one. */
function stagesOf({ stages, reward }: RunContext["config"]): StageName[] {
  return STAGE_ORDER.filter(
    (stage) => stages.includes(stage) && !(stage === "reward" && reward.path !== null),
  );
}

/** The phases whose rows are needed: the ptx mix of ppo draws from the sft rows. */
export function phasesOf(config: RunContext["config"]): StageName[] {
  const stages = stagesOf(config);
  const needsSftRows = stages.includes("ppo") && config.ppo.ptx !== null && !stages.includes("sft");
  return needsSftRows ? [...stages, "sft"] : stages;
}

function checkModels(
  { config }: RunContext,
  stages: readonly StageName[],
  earlier: ReadonlyMap<StageName, StageOutcome>,
): void {
  if (!stages.includes("ppo")) return;
  const has = (stage: StageName): boolean => stages.includes(stage) || earlier.has(stage);
  const given = `stages is [${config.stages.join(", ")}]`;
  if (config.reward.path === null && !has("reward")) {
    throw configError(
      `stage ppo needs a reward model: ${given} and reward.path is null; add the reward stage, or set reward.path to a reward model directory`,
    );
  }
  if (config.model.path === null && !has("sft")) {
    throw configError(
      `stage ppo needs a trained policy: ${given} and model.path is null; add the sft stage, or set model.path to a model directory`,
    );
  }
}

/** Every stage must find enough rows for one step. */
function checkRows({ config, data }: RunContext, stages: readonly StageName[]): void {
  for (const stage of ["sft", "reward"] as const) {
    const rows = data[stage].train.length;
    const { batchSize } = config[stage];
    if (!stages.includes(stage) || rows >= batchSize) continue;
    throw configError(
      `${stage}.batchSize: ${batchSize} rows per step, but the ${stage} split has only ${rows} training rows; lower ${stage}.batchSize or give more data`,
    );
  }
  if (stages.includes("ppo") && config.ppo.ptx !== null && data.sft.train.length === 0) {
    throw configError(
      "ppo.ptx: needs sft rows to mix in, but the sft split is empty; raise its share in data.split",
    );
  }
}
