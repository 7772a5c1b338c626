import { expect, test } from "vitest";
import { createEngine } from "../../../src/engine/create-engine.js";
import { makeActorGradProgram } from "../../../src/learner/programs.js";
import { tasksOf } from "../../../src/learner/shard-tasks.js";
import { freshGpt2Spec, initParams, layoutOf } from "../../../src/models/model-spec.js";

const spec = freshGpt2Spec({
  head: "lm",
  layers: 1,
  hidden: 8,
  heads: 2,
  contextTokens: 96,
  vocabularySize: 11,
  eosTokenId: 0,
  padTokenId: 1,
});
const hyper = {
  cliprange: 0.2,
  cliprangeValue: 0.2,
  temperature: 0.7,
  ptxCoef: 0,
  emaDecay: null,
  lossDenominator: "global-tokens" as const,
};

const rowOf = (prompt: number, response: number) => ({
  promptIds: Int32Array.from({ length: prompt }, (_, i) => (3 * i + prompt) % 11),
  responseIds: Int32Array.from({ length: response }, (_, i) => (5 * i + 1) % 11),
  actionMask: new Uint8Array(response).fill(1),
  logprobs: new Float32Array(response).fill(-2.3),
  advantages: Float32Array.from({ length: response }, (_, i) => Math.cos(i + prompt)),
  values: new Float32Array(response),
  returns: new Float32Array(response),
});

function actorTask(prompts: readonly number[]) {
  const critic = { ...spec, head: "scalar" as const };
  const tasks = tasksOf(
    { kind: "ppo", rows: prompts.map((prompt) => rowOf(prompt, 9)) },
    {
      settings: { stage: "ppo", hyper },
      specs: new Map([
        ["actor", spec],
        ["critic", critic],
      ]),
      padId: 1,
      rowsPerRun: 2,
      denominators: { main: 18, ptx: 0 },
      shardCount: 1,
    },
  );
  return tasks.find(({ role }) => role === "actor")!;
}

test("an actor gradient without the head on prompts is the gradient with it", async () => {
  const { engine } = await createEngine({ name: "onnx" });
  try {
    const params = engine.createArena(layoutOf(spec), initParams(spec, 5));
    const { program, inputs } = actorTask([37, 41]);
    expect(program.key).toContain(" from32 ");
    const whole = makeActorGradProgram(spec, { rows: 2, length: 64 }, hyper);
    const results = [];
    for (const one of [program, whole]) {
      const grads = engine.createArena(layoutOf(spec));
      const outputs = await (await engine.compile(one)).run({ params, grads }, inputs);
      results.push({ outputs, grads: Float32Array.from(await grads.read()) });
    }
    const [cropped, full] = results;
    expect(Math.max(...full.grads)).toBeGreaterThan(1e-3);
    cropped.grads.forEach((value, i) => expect(value).toBeCloseTo(full.grads[i], 6));
    for (const [name, [value]] of Object.entries(full.outputs))
      expect(cropped.outputs[name][0], name).toBeCloseTo(value, 4);
  } finally {
    await engine.dispose();
  }
});

test("the shortest prompt of a micro-shard decides, and short ones keep every position", () => {
  expect(actorTask([70, 41]).program.key).toContain(" from32 ");
  expect(actorTask([70, 66]).program.key).toContain(" from64 ");
  expect(actorTask([70, 33]).program.key).toContain(" from32 ");
  expect(actorTask([70, 32]).program.key).toContain(" from0 ");
});
