import * as tf from "@tensorflow/tfjs";
import { beforeAll, describe, expect, it } from "vitest";
import { policyLoss, type Importance } from "../../../src/rl/policy-loss.js";
import { normals } from "./fixtures.js";

beforeAll(async () => {
  await tf.setBackend("cpu");
});

const CLIP = 0.2;

/** One token with π_prox / π_behav = weight and π_θ / π_prox = ratio: loss and its gradient by log π_θ. */
function ofOneToken(weight: number, ratio: number, advantage: number, importance: Importance | null) {
  const old = -2;
  const proximal = old + Math.log(weight);
  const loss = (x: tf.Tensor) =>
    policyLoss(
      {
        logprobs: x,
        oldLogprobs: tf.tensor([old]),
        proximalLogprobs: tf.tensor([proximal]),
        advantages: tf.tensor([advantage]),
        mask: tf.tensor([1]),
        denominator: tf.scalar(1),
      },
      { cliprange: CLIP, importance },
    );
  const at = tf.tensor([proximal + Math.log(ratio)]);
  const { value, grad } = tf.valueAndGrad((x: tf.Tensor) => loss(x).loss)(at);
  return { loss: value.dataSync()[0], slope: grad.dataSync()[0], sums: loss(at).sums };
}

describe("policyLoss with an importance weight", () => {
  it.each([
    // kind, weight, ratio, advantage, loss, slope; cap 2
    ["decoupled", 1.5, 1, 1, -1.5, -1.5],
    ["decoupled", 1.5, 1.3, 1, -1.8, 0], // clipped at 1.2 around π_prox, then weighed
    ["decoupled", 0.5, 0.7, -1, 0.4, 0],
    ["decoupled", 0.5, 1.3, -1, 0.65, 0.65],
    ["decoupled", 3, 1.1, 1, 0, 0], // beyond the cap: no say
    ["truncated", 1.5, 1, 1, -1.5, -1.5],
    ["truncated", 3, 1.1, 1, -2.2, -2.2], // beyond the cap: 2
    ["truncated", 3, 1.3, 1, -2.4, 0],
  ] as const)(
    "%s of weight %d and ratio %d with advantage %d is %d, slope %d",
    (kind, w, r, a, loss, slope) => {
      const result = ofOneToken(w, r, a, { kind, cap: 2 });
      expect(result.loss).toBeCloseTo(loss, 5);
      expect(result.slope).toBeCloseTo(slope, 5);
    },
  );

  it("does not clip a token for what the policy did before the update, unlike the plain loss", () => {
    // π_prox has moved 1.5 times away from π_behav, π_θ has not moved at all since.
    const stale = ofOneToken(1.5, 1, 1, { kind: "decoupled", cap: 2 });
    expect(stale.sums.clipFracSum.dataSync()[0]).toBe(0);
    const naive = tf.grad(
      (x: tf.Tensor) =>
        policyLoss(
          {
            logprobs: x,
            oldLogprobs: tf.tensor([-2]),
            advantages: tf.tensor([1]),
            mask: tf.tensor([1]),
            denominator: tf.scalar(1),
          },
          { cliprange: CLIP },
        ).loss,
    )(tf.tensor([-2 + Math.log(1.5)]));
    expect(naive.dataSync()[0]).toBe(0);
    expect(stale.slope).toBeCloseTo(-1.5, 5);
  });

  it("is the plain loss, bit for bit, for fresh experience", () => {
    const N = 12;
    const [old, moved, advantages] = ["old", "moved", "advantages"].map((name) => normals(N, name));
    const input = {
      logprobs: tf.tensor(old.map((x, i) => x + 0.3 * moved[i])),
      oldLogprobs: tf.tensor(old),
      advantages: tf.tensor(advantages),
      mask: tf.tensor(Float32Array.from({ length: N }, (_, i) => (i < 9 ? 1 : 0))),
      denominator: tf.scalar(9),
    };
    const plain = policyLoss(input, { cliprange: CLIP });
    for (const kind of ["decoupled", "truncated"] as const) {
      const proximalLogprobs = tf.tensor(old);
      const { loss, sums } = policyLoss(
        { ...input, proximalLogprobs },
        { cliprange: CLIP, importance: { kind, cap: 5 } },
      );
      expect(loss.dataSync()[0]).toBe(plain.loss.dataSync()[0]);
      expect(sums.importanceSum!.dataSync()[0]).toBe(9);
      expect(sums.importanceSquaredSum!.dataSync()[0]).toBe(9);
      expect(sums.importanceCappedSum!.dataSync()[0]).toBe(0);
    }
    expect(plain.sums.importanceSum).toBeUndefined();
  });

  it("counts tokens beyond the cap, and only those of the mask", () => {
    const { sums } = policyLoss(
      {
        logprobs: tf.tensor([-1, -1, -1]),
        oldLogprobs: tf.tensor([-1, -3, -3]),
        proximalLogprobs: tf.tensor([-1, -1, -1]),
        advantages: tf.tensor([1, 1, 1]),
        mask: tf.tensor([1, 1, 0]),
        denominator: tf.scalar(2),
      },
      { cliprange: CLIP, importance: { kind: "truncated", cap: 2 } },
    );
    expect(sums.importanceCappedSum!.dataSync()[0]).toBe(1);
    expect(sums.importanceSum!.dataSync()[0]).toBe(3);
    expect(sums.importanceSquaredSum!.dataSync()[0]).toBe(5);
  });
});
