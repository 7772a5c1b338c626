import { describe, expect, it } from "vitest";
import { drawByBlocks, logitRow, SUM_BLOCK, type LogitRow } from "../../../src/rollout/logit-row.js";
import { TokenSampler } from "../../../src/rollout/sampling.js";
import { streamOf, uniformAt } from "../../../src/shared/rng.js";
import { SAMPLING } from "./tiny-models.js";

const VOCABULARY = 2 * SUM_BLOCK + 37;
const stream = streamOf("logits");
const LOGITS = Float32Array.from({ length: VOCABULARY }, (_, i) => 8 * uniformAt(1, stream, i) - 4);

/** What a generation program returns for these logits. */
function rowOf(logits: Float32Array, temperature: number): LogitRow {
  const highest = logits.reduce((a, b) => Math.max(a, b));
  const sums = new Float32Array(Math.ceil(logits.length / SUM_BLOCK));
  logits.forEach(
    (logit, i) => (sums[Math.floor(i / SUM_BLOCK)] += Math.exp((logit - highest) / temperature)),
  );
  return { logits, highest, sums };
}

describe("a draw by blocks", () => {
  it.each([
    ["plain", 1, []],
    ["at another temperature", 0.6, []],
    ["with forbidden tokens in two blocks", 1, [3, SUM_BLOCK - 1, SUM_BLOCK + 4]],
    ["without the likeliest token", 1, [LOGITS.indexOf(LOGITS.reduce((a, b) => Math.max(a, b)))]],
  ] as const)("is the draw over all tokens, %s", (_title, temperature, forbidden) => {
    const row = rowOf(LOGITS, temperature);
    const sampler = new TokenSampler(VOCABULARY);
    const options = { ...SAMPLING, temperature };
    const steps = 4000;
    let differing = 0;
    const seen = new Set<number>();
    for (let i = 0; i < steps; i++) {
      const draw = { uniform: (i + 0.5) / steps, seen: null, forbidden };
      const whole = sampler.draw(LOGITS, options, draw);
      const byBlocks = drawByBlocks(row, 1 / temperature, forbidden, draw.uniform)!;
      seen.add(byBlocks.token);
      // Only a uniform within rounding of a boundary between two tokens may fall on the other side of it.
      if (byBlocks.token !== whole.token) differing++;
      else expect(Math.abs(byBlocks.logprob - whole.logprob)).toBeLessThan(1e-6);
    }
    expect(differing).toBeLessThan(5);
    expect(seen.size).toBeGreaterThan(VOCABULARY / 3);
    for (const id of forbidden) expect(seen).not.toContain(id);
  });

  it("finds the first and the last token at the ends of the unit interval", () => {
    const row = rowOf(LOGITS, 1);
    expect(drawByBlocks(row, 1, [], 0)!.token).toBe(0);
    expect(drawByBlocks(row, 1, [], 1 - 2 ** -53)!.token).toBe(VOCABULARY - 1);
    expect(drawByBlocks(row, 1, [0, VOCABULARY - 1], 0)!.token).toBe(1);
  });

  it("gives up where nearly all of the mass is forbidden, and the sampler then reads every token", () => {
    const peaked = LOGITS.slice();
    peaked[5] = 60;
    const row = rowOf(peaked, 1);
    expect(drawByBlocks(row, 1, [5], 0.5)).toBeNull();
    const draw = { uniform: 0.5, seen: null, forbidden: [5] };
    const sampler = new TokenSampler(VOCABULARY);
    expect(sampler.drawRow(row, SAMPLING, draw)).toEqual(sampler.draw(peaked, SAMPLING, draw));
  });

  it("leaves logits that are not numbers to the sampler, which has no log-probability for them", () => {
    const broken = LOGITS.slice();
    broken[7] = NaN;
    const row = { ...rowOf(LOGITS, 1), logits: broken, highest: NaN, sums: new Float32Array(3).fill(NaN) };
    const draw = { uniform: 0.5, seen: null, forbidden: [] };
    expect(new TokenSampler(VOCABULARY).drawRow(row, SAMPLING, draw).logprob).toBeNaN();
  });

  it("is not used where top-k, top-p, a penalty or greediness needs every token", () => {
    const misleading = { ...rowOf(LOGITS, 1), sums: new Float32Array(3).fill(1) };
    const draw = { uniform: 0.3, seen: null, forbidden: [] };
    const sampler = new TokenSampler(VOCABULARY);
    for (const options of [{ topK: 5 }, { topP: 0.5 }, { greedy: true }]) {
      const all = { ...SAMPLING, ...options };
      expect(sampler.drawRow(misleading, all, draw)).toEqual(sampler.draw(LOGITS, all, draw));
    }
  });

  it("reads its row out of a program's outputs", () => {
    const outputs = {
      logits: Float32Array.from({ length: 600 }, (_, i) => i),
      highest: Float32Array.of(299, 599),
      sums: Float32Array.of(1, 2, 3, 4),
    };
    const { logits, highest, sums } = logitRow(outputs, 1, 300);
    expect([logits[0], logits.length, highest, [...sums]]).toEqual([300, 300, 599, [3, 4]]);
  });
});
