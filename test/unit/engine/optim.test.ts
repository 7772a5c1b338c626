import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../../src/engine/engine.js";
import { makeLayout } from "../../../src/engine/layout.js";
import { makeAdamwProgram } from "../../../src/engine/optim.js";
import { openReference } from "./engines.js";

const layout = makeLayout({ bias: [2], weight: [2, 2] });
const OPTIONS = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0.1, clipNorm: 0 };

describe("AdamW", () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await openReference(1);
  });
  afterAll(() => engine.dispose());

  async function run(options: typeof OPTIONS, gradients: number[][], learningRate = 0.1) {
    const params = engine.createArena(layout, Float32Array.of(1, -2, 0.5, -0.25, 3, 0));
    const [grads, m, v] = [0, 1, 2].map(() => engine.createArena(layout));
    const adamw = await engine.compile(makeAdamwProgram(layout, options));
    const norms: number[] = [];
    for (const [i, gradient] of gradients.entries()) {
      await grads.write(Float32Array.from(gradient));
      const scalars = { learningRate: Float32Array.of(learningRate), step: Float32Array.of(i + 1) };
      norms.push((await adamw.run({ params, grads, m, v }, scalars)).gradNorm[0]);
    }
    return { params: await params.read(), norms };
  }

  // In float64, following the formula of the docstring element by element.
  function expected(options: typeof OPTIONS, gradients: number[][], learningRate: number): number[] {
    const p = [1, -2, 0.5, -0.25, 3, 0];
    const [m, v] = [p.map(() => 0), p.map(() => 0)];
    gradients.forEach((raw, i) => {
      const norm = Math.hypot(...raw);
      const scale = options.clipNorm === 0 ? 1 : Math.min(1, options.clipNorm / (norm + 1e-6));
      raw.forEach((value, j) => {
        const g = value * scale;
        m[j] = options.beta1 * m[j] + (1 - options.beta1) * g;
        v[j] = options.beta2 * v[j] + (1 - options.beta2) * g * g;
        const mHat = m[j] / (1 - options.beta1 ** (i + 1));
        const denominator = Math.sqrt(v[j]) / Math.sqrt(1 - options.beta2 ** (i + 1)) + options.epsilon;
        const decay = j < 2 ? 0 : options.weightDecay; // the bias comes first and is not decayed
        p[j] = p[j] * (1 - learningRate * decay) - (learningRate * mHat) / denominator;
      });
    });
    return p;
  }

  const gradients = [
    [0.3, -0.1, 2, 0.01, -1, 0],
    [-0.2, 0.4, 1, 0.02, 0.5, 0],
    [0.1, 0.1, -3, 0.5, 0.25, 0],
  ];

  it.each([
    ["no clipping", 0],
    ["clipping", 1],
  ])("follows the float64 formula over three steps, %s", async (_title, clipNorm) => {
    const options = { ...OPTIONS, clipNorm };
    const { params } = await run(options, gradients);
    expected(options, gradients, 0.1).forEach((value, i) => expect(params[i]).toBeCloseTo(value, 5));
  });

  it("moves by the learning rate in the first step, whatever the gradient's size", async () => {
    const { params } = await run({ ...OPTIONS, weightDecay: 0 }, [[1e-3, -1e3, 1, -1, 1, -1]]);
    [1 - 0.1, -2 + 0.1, 0.5 - 0.1, -0.25 + 0.1, 3 - 0.1, 0.1].forEach((value, i) =>
      expect(params[i]).toBeCloseTo(value, 4),
    );
  });

  it("reports the norm before clipping", async () => {
    const { norms } = await run({ ...OPTIONS, clipNorm: 1 }, [[3, 0, 4, 0, 0, 12]]);
    expect(norms[0]).toBeCloseTo(13, 5);
  });

  it("shows a non-finite gradient in the norm", async () => {
    const { norms } = await run({ ...OPTIONS, clipNorm: 1 }, [[NaN, 0, 0, 0, 0, 0]]);
    expect(norms[0]).toBeNaN();
  });
});
