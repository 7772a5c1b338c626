/** Tracing and compiling one program on an engine that has compiled nothing yet. */
import { createEngine } from "../../engine/create-engine.js";
import type { Program } from "../../engine/engine.js";
import { makeLmGradProgram } from "../../learner/programs.js";
import { cacheLayout } from "../../models/cache-layout.js";
import { layoutOf, type ModelSpec } from "../../models/model-spec.js";
import { decodeProgram, prefillProgram } from "../../rollout/generation-programs.js";
import { benchSpec } from "./bench-model.js";
import type { ModelShape, Side } from "./side.js";

export interface CompileConfig extends ModelShape {
  readonly threads: number;
  readonly what: keyof typeof PROGRAMS;
}

const generation = (spec: ModelSpec) => {
  const [slots, slotTokens] = [8, 128];
  const cache = cacheLayout(spec, slots, slotTokens);
  return { spec, params: layoutOf(spec), base: null, cache, slots, slotTokens };
};

const PROGRAMS = {
  gradient: (spec: ModelSpec): Program =>
    makeLmGradProgram(spec, { rows: 2, length: 128, tokens: 2 * 127 }, 1).overwriting,
  prefill: (spec: ModelSpec): Program => prefillProgram(generation(spec), 4, 16),
  decode: (spec: ModelSpec): Program => decodeProgram(generation(spec)),
} as const;

export async function open(config: CompileConfig): Promise<Side> {
  const program = PROGRAMS[config.what](benchSpec(config, "lm"));
  const isFrozen = Object.values(program.arenas).some(({ access }) => access === "frozen");
  return {
    repeat: async () => {
      const { engine } = await createEngine({ name: "onnx", threads: config.threads });
      const executable = await engine.compile(program);
      if (isFrozen) {
        // Its weights are packed at the first run.
        const arenas = Object.fromEntries(
          Object.entries(program.arenas).map(([alias, { layout }]) => [alias, engine.createArena(layout)]),
        );
        const inputs = Object.fromEntries(
          Object.entries(program.inputs).map(([name, { shape, dtype }]) => {
            const size = shape.reduce((product, side) => product * side, 1);
            return [name, dtype === "int32" ? new Int32Array(size) : new Float32Array(size)];
          }),
        );
        await executable.run(arenas, inputs);
      }
      await engine.dispose();
      return 1;
    },
    close: async () => {},
  };
}
