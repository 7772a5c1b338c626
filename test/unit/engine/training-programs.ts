/** Whole training steps of the tiny model, as the learners run them. */
import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import type { HostArrays, Program, Tensors } from "../../../src/engine/engine.js";
import { valueAndGradients } from "../../../src/engine/gradients.js";
import * as ops from "../../../src/engine/ops.js";
import { TestRandom } from "./random.js";
import { TINY, tinyHidden, tinyLayout } from "./tiny-gpt.js";

const BATCH = 2;
const LENGTH = 12;
const TOKENS = BATCH * LENGTH;
const layout = tinyLayout(TINY);

export type LossName = "cross-entropy" | "ppo";

const ints = { shape: [BATCH, LENGTH], dtype: "int32" } as const;
const floats = { shape: [TOKENS], dtype: "float32" } as const;

/** Adds the gradient of one microbatch to the grads arena; returns loss and metrics. */
export function gradientProgram(loss: LossName): Program {
  return {
    key: `tiny gradient ${loss}`,
    arenas: { params: { layout, access: "read" }, grads: { layout, access: "update" } },
    inputs: { ids: ints, labels: ints, oldLogprobs: floats, advantages: floats, mask: floats },
    body: (arenas, inputs) => {
      const result = valueAndGradients(arenas.params, (params) => {
        const hidden = tinyHidden(TINY, params, inputs.ids);
        const labels = tf.reshape(inputs.labels, [TOKENS]);
        const { logprobs, entropy } = ops.headLogprobs(hidden, params.wte, labels, 0.9);
        const value = loss === "ppo" ? ppoLoss(logprobs, inputs) : tf.neg(masked(logprobs, inputs.mask));
        return { loss: value, aux: { logprobs, entropy: masked(entropy, inputs.mask) } };
      });
      const sums = Object.entries(result.grads).map(
        ([n, grad]) => [n, tf.add(arenas.grads[n], grad)] as const,
      );
      return { outputs: { loss: result.loss, ...result.aux }, updates: { grads: Object.fromEntries(sums) } };
    },
  };
}

const masked = (x: Tensor, mask: Tensor): Tensor => tf.div(tf.sum(tf.mul(x, mask)), tf.sum(mask));

/** Clipped surrogate, clip range 0.2. */
function ppoLoss(logprobs: Tensor, { oldLogprobs, advantages, mask }: Tensors): Tensor {
  const ratio = tf.exp(tf.sub(logprobs, oldLogprobs));
  const unclipped = tf.mul(tf.neg(advantages), ratio);
  const clipped = tf.mul(tf.neg(advantages), tf.clipByValue(ratio, 0.8, 1.2));
  return masked(tf.maximum(unclipped, clipped), mask);
}

export function trainingInputs(seed: number): HostArrays {
  const random = new TestRandom(seed);
  return {
    ids: random.ints(TOKENS, TINY.vocabulary),
    labels: random.ints(TOKENS, TINY.vocabulary),
    oldLogprobs: random.floats(TOKENS, 0.5).map((x) => x - 4.1),
    advantages: random.floats(TOKENS),
    mask: Float32Array.from({ length: TOKENS }, () => (random.next() > 0.2 ? 1 : 0)),
  };
}
