/** Which settings lower what a run needs: found by estimating it again with each of them lowered. */
import { configSchema, type Config } from "../config/schema.js";
import { engineOf } from "../engine/choice.js";
import { errorCodeOf } from "../shared/errors.js";
import { estimateMemory, type LocalProcesses, type MemoryEstimate } from "./memory-estimate.js";

interface Knob {
  readonly text: string;
  readonly lowered: Config;
}

/** A setting that saves less is not worth naming. */
const LEAST_SHARE = 0.01;

/**
 * Settings that lower what is needed, those that do most first.
 * @param bytesOf what counts of an estimate @default all processes of the run
 */
export async function knobs(
  config: Config,
  bytesOf: (estimate: MemoryEstimate) => number = ({ totalBytes }) => totalBytes,
  local?: LocalProcesses,
): Promise<string[]> {
  const needed = bytesOf(await estimateMemory(config, local));
  const ranked: { text: string; saved: number }[] = [];
  for (const { text, lowered } of knobsOf(config))
    ranked.push({ text, saved: needed - bytesOf(await estimateLowered(lowered, config, local)) });
  return [
    ...ranked
      .filter(({ saved }) => saved >= LEAST_SHARE * needed)
      .sort((a, b) => b.saved - a.saved)
      .map(({ text }) => text),
    ...(config.model.path === null ? [] : ["model.path, to a smaller model"]),
  ];
}

/** Ends a message about too little memory. */
export const advice = (lower: readonly string[]): string =>
  lower.length === 0 ? "" : ` Lower ${lower.join(", ")}.`;

/** Of the config itself where the change does not go with the rest of it: that knob saves nothing. */
async function estimateLowered(
  lowered: Config,
  config: Config,
  local: LocalProcesses | undefined,
): Promise<MemoryEstimate> {
  try {
    return await estimateMemory(lowered, local);
  } catch (error) {
    if (errorCodeOf(error) !== "CONFIG") throw error;
    return estimateMemory(config, local);
  }
}

function knobsOf(config: Config): Knob[] {
  const { cluster, engine, generation, data, model, ppo } = config;
  const half = (value: number) => Math.max(1, Math.floor(value / 2));
  const inCluster = (change: Partial<Config["cluster"]>): Config => ({
    ...config,
    cluster: { ...cluster, ...change },
  });
  const inEngine = (change: Partial<Config["engine"]>): Config => ({
    ...config,
    engine: { ...engine, ...change },
  });
  const inPpo = (change: Partial<Config["ppo"]>): Config => ({ ...config, ppo: { ...ppo, ...change } });
  const inModel = (change: Partial<Config["model"]>): Config => ({
    ...config,
    model: { ...model, ...change },
  });
  const knob = (isOpen: boolean, text: string, lowered: Config): Knob[] =>
    isOpen ? [{ text, lowered }] : [];
  const takesInt8 = engineOf(engine) === "onnx" && engine.provider === "cpu";
  const { lora } = configSchema.parse({ data: { path: "-" }, model: { lora: {} } }).model;
  const { layers, hidden, heads } = model.fresh;
  const smaller = layers > 1 ? { layers: half(layers) } : { hidden: heads * half(hidden / heads) };
  const fresh = { ...model.fresh, ...smaller };
  return [
    ...knob(
      cluster.learners > 1,
      `cluster.learners (${cluster.learners}; results stay the same)`,
      inCluster({ learners: 1 }),
    ),
    ...knob(cluster.rollouts > 1, `cluster.rollouts (${cluster.rollouts})`, inCluster({ rollouts: 1 })),
    ...knob(
      cluster.sync === "parameters" && cluster.averageMoments,
      "what is averaged, with cluster.averageMoments: false",
      inCluster({ averageMoments: false }),
    ),
    ...knob(
      engine.recompute === "none",
      "what gradients keep, with engine.recompute: layers",
      inEngine({ recompute: "layers" }),
    ),
    ...knob(
      engine.frozenWeights === "f32" && takesInt8,
      "reference and reward model on rollout workers, with engine.frozenWeights: int8",
      inEngine({ frozenWeights: "int8" }),
    ),
    ...knob((engine.threads ?? 1) > 1, `engine.threads (${engine.threads})`, inEngine({ threads: 1 })),
    ...knob(
      true,
      `engine.microBatchTokens (${engine.microBatchTokens})`,
      inEngine({ microBatchTokens: half(engine.microBatchTokens) }),
    ),
    ...knob(ppo.ema !== null, "ppo.ema, with null", inPpo({ ema: null })),
    ...knob(ppo.ptx !== null, "ppo.ptx, with null", inPpo({ ptx: null })),
    ...knob(model.lora === null, "what is trained, with model.lora: {}", inModel({ lora })),
    ...knob(model.path === null, "model.fresh.layers and hidden", inModel({ fresh })),
    ...knob(true, "data.maxPromptTokens, data.maxResponseTokens and generation.maxNewTokens", {
      ...config,
      data: {
        ...data,
        maxPromptTokens: half(data.maxPromptTokens),
        maxResponseTokens: half(data.maxResponseTokens),
      },
      generation: { ...generation, maxNewTokens: half(generation.maxNewTokens) },
    }),
    ...knob(true, `generation.slots (${generation.slots})`, {
      ...config,
      generation: { ...generation, slots: half(generation.slots) },
    }),
  ];
}
