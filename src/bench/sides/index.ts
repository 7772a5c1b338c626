/** Our sides by name; each loads only what it runs. */
export const SIDES = {
  "train-step": () => import("./train-step.js"),
  "ppo-update": () => import("./ppo-update.js"),
  "ppo-iteration": () => import("./ppo-iteration.js"),
  "cluster-iteration": () => import("./cluster-iteration.js"),
  prefill: () => import("./prefill.js"),
  "all-reduce": () => import("./all-reduce.js"),
  compile: () => import("./compile.js"),
  decode: () => import("./decode.js"),
  experience: () => import("./experience.js"),
  weights: () => import("./weights.js"),
} as const;

export type SideName = keyof typeof SIDES;
