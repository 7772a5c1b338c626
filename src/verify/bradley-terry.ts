/** Does the reward-model loss recover a known reward from noisy preferences, as far as that is possible? */
import * as tf from "@tensorflow/tfjs";
import type { Engine } from "../engine/engine.js";
import { makeLayout } from "../engine/layout.js";
import { embedding } from "../engine/ops.js";
import { endScoreLoss } from "../rl/reward-loss.js";
import { learningRateAt } from "../rl/schedule.js";
import { shuffledOrder } from "../rl/shuffle.js";
import { normalAt, streamOf, uniformAt } from "../shared/rng.js";
import { TableLearner } from "./table-learner.js";

const VOCABULARY = 32;
const ANSWER_TOKENS = 4;

export interface BradleyTerryOptions {
  readonly seed: number;
  readonly trainPairs: number;
  readonly heldOutPairs: number;
  readonly batchSize: number;
  readonly epochs: number;
}

export const BRADLEY_TERRY_DEFAULTS: BradleyTerryOptions = {
  seed: 1,
  trainPairs: 16_384,
  heldOutPairs: 8_192,
  batchSize: 512,
  epochs: 3,
};

export interface BradleyTerryResult {
  /** Expected over labels, on held-out pairs. */
  readonly accuracy: number;
  /** E[σ(|Δr|)]: the best any scorer can do. */
  readonly accuracyCeiling: number;
  readonly loss: number;
  /** E[H(σ(Δr))]: the loss of the true reward. */
  readonly lossFloor: number;
  /** (accuracy − ½) / (ceiling − ½) */
  readonly accuracyShare: number;
  /** (ln 2 − loss) / (ln 2 − floor) */
  readonly lossShare: number;
}

interface Pair {
  readonly a: Int32Array;
  readonly b: Int32Array;
  /** True r(a) − r(b). */
  readonly difference: number;
}

/**
 * An answer is a bag of tokens, its true reward the sum of latent token rewards; the label of a pair is drawn with
 * P(a preferred) = σ(r(a) − r(b)). A table of token scores starts at zero and learns from the labels alone.
 */
export async function verifyBradleyTerry(
  engine: Engine,
  options: BradleyTerryOptions = BRADLEY_TERRY_DEFAULTS,
): Promise<BradleyTerryResult> {
  const { seed, trainPairs, heldOutPairs, batchSize, epochs } = options;
  const latent = Float64Array.from(
    { length: VOCABULARY },
    (_, v) => 0.6 * normalAt(seed, streamOf("latent"), v),
  );
  const pairs = makePairs(seed, latent, trainPairs + heldOutPairs);
  const labels = streamOf("labels");
  const train = pairs.slice(0, trainPairs).map(({ a, b, difference }, i) => {
    const isAPreferred = uniformAt(seed, labels, i) < sigmoid(difference);
    return { chosen: isAPreferred ? a : b, rejected: isAPreferred ? b : a };
  });

  const optimizer = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0, clipNorm: 1 };
  const learner = new TableLearner(
    engine,
    makeLayout({ scores: [VOCABULARY, 1] }),
    optimizer,
    new Float32Array(VOCABULARY),
  );
  const ids = { shape: [batchSize * ANSWER_TOKENS], dtype: "int32" } as const;
  const program = learner.gradProgram(
    `verify-bradley-terry B${batchSize}`,
    { chosen: ids, rejected: ids },
    (params, tokens) => {
      const scoresOf = (of: tf.Tensor) =>
        tf.sum(tf.reshape(embedding(params.scores, of), [batchSize, ANSWER_TOKENS]), 1);
      return endScoreLoss({
        chosenScores: scoresOf(tokens.chosen),
        rejectedScores: scoresOf(tokens.rejected),
        mask: tf.ones([batchSize]),
        denominator: tf.scalar(batchSize),
      }).loss;
    },
  );
  const batches = Math.floor(trainPairs / batchSize);
  for (let epoch = 0; epoch < epochs; epoch++) {
    const order = shuffledOrder(trainPairs, { seed, iteration: 0, epoch });
    for (let batch = 0; batch < batches; batch++) {
      const rows = Array.from(order.subarray(batch * batchSize, (batch + 1) * batchSize), (i) => train[i]);
      const inputs = {
        chosen: Int32Array.from(rows.flatMap((row) => [...row.chosen])),
        rejected: Int32Array.from(rows.flatMap((row) => [...row.rejected])),
      };
      const rate = learningRateAt(
        { learningRate: 0.1, schedule: "linear", warmupSteps: 0 },
        epoch * batches + batch,
        epochs * batches,
      );
      await learner.update(program, inputs, rate);
    }
  }
  const scores = (await learner.params.read()).slice();
  learner.dispose();
  return evaluate(pairs.slice(trainPairs), scores);
}

function makePairs(seed: number, latent: Float64Array, count: number): Pair[] {
  const stream = streamOf("answers");
  return Array.from({ length: count }, (_, i) => {
    const answer = (side: number) =>
      Int32Array.from({ length: ANSWER_TOKENS }, (_, t) =>
        Math.floor(VOCABULARY * uniformAt(seed, stream, (2 * i + side) * ANSWER_TOKENS + t)),
      );
    const [a, b] = [answer(0), answer(1)];
    return { a, b, difference: total(latent, a) - total(latent, b) };
  });
}

function evaluate(pairs: readonly Pair[], scores: Float32Array): BradleyTerryResult {
  const mean = (of: (pair: Pair) => number) => pairs.reduce((sum, pair) => sum + of(pair), 0) / pairs.length;
  const learned = ({ a, b }: Pair) => total(scores, a) - total(scores, b);
  // Expectations over the label: no sampling noise in the verdict.
  const expectedLoss = (truth: number, x: number) =>
    sigmoid(truth) * Math.log1p(Math.exp(-x)) + sigmoid(-truth) * Math.log1p(Math.exp(x));
  const accuracy = mean((pair) =>
    learned(pair) === 0 ? 0.5 : sigmoid(pair.difference * Math.sign(learned(pair))),
  );
  const accuracyCeiling = mean((pair) => sigmoid(Math.abs(pair.difference)));
  const loss = mean((pair) => expectedLoss(pair.difference, learned(pair)));
  const lossFloor = mean((pair) => expectedLoss(pair.difference, pair.difference));
  return {
    accuracy,
    accuracyCeiling,
    loss,
    lossFloor,
    accuracyShare: (accuracy - 0.5) / (accuracyCeiling - 0.5),
    lossShare: (Math.LN2 - loss) / (Math.LN2 - lossFloor),
  };
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const total = (scores: ArrayLike<number>, ids: Int32Array): number =>
  ids.reduce((sum, id) => sum + scores[id], 0);
