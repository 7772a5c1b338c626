/** Bradley–Terry losses of a reward model on pairs (chosen, rejected). */
import * as tf from "@tensorflow/tfjs";
import type { Scalar, Tensor } from "@tensorflow/tfjs";

/** Sums over pairs. */
export interface RewardLossSums {
  readonly pairs: Scalar;
  /** pairs with chosen score > rejected score, strictly */
  readonly correctSum: Scalar;
  readonly chosenScoreSum: Scalar;
  readonly rejectedScoreSum: Scalar;
}

/**
 * −log σ(x), element-wise, finite for every finite x.
 *
 *   max(0, −x) + log(1 + e^(−|x|))          d/dx = −σ(−x) = −1 / (1 + e^x)
 *
 * The gradient is given in closed form: autodiff of the line above counts the kink at x = 0 twice, and untrained
 * models stand exactly there.
 */
export const negativeLogSigmoid = tf.customGrad((x, save) => {
  const input = x as Tensor;
  (save as (tensors: Tensor[]) => void)([input]);
  const magnitude = tf.maximum(input, tf.neg(input));
  const value = tf.add(tf.maximum(tf.neg(input), 0), tf.log(tf.add(tf.exp(tf.neg(magnitude)), 1)));
  const gradFunc = (dy: Tensor, saved: Tensor[]): Tensor =>
    // e^x overflows to infinity above x = 88, which is right: the gradient is 0 there
    tf.neg(tf.div(dy, tf.add(tf.exp(saved[0]), 1)));
  return { value, gradFunc };
}) as (x: Tensor) => Tensor;

export interface EndScoreLossInput {
  /** `[B]` score of the chosen answer, read at its last token */
  readonly chosenScores: Tensor;
  /** `[B]` */
  readonly rejectedScores: Tensor;
  /** `[B]` 0/1, 0 for padding pairs */
  readonly mask: Tensor;
  /** Scalar: pairs of the whole batch, over all micro-shards and learners. */
  readonly denominator: Tensor;
}

/**
 * The default ranking loss: one comparison per pair, at each answer's last token.
 *
 *   loss = Σ mask · −log σ(r_chosen − r_rejected) / denominator            (ln 2 when scores are equal)
 */
export function endScoreLoss(input: EndScoreLossInput): { loss: Scalar; sums: RewardLossSums } {
  const { chosenScores, rejectedScores, mask, denominator } = input;
  const losses = negativeLogSigmoid(tf.sub(chosenScores, rejectedScores));
  const loss = tf.div(tf.sum(tf.mul(losses, mask)), denominator) as Scalar;
  return { loss, sums: rewardSums(chosenScores, rejectedScores, mask) };
}

export interface SpanLossInput {
  /** `[B, T]` the model's scalar at every token of the chosen rows */
  readonly chosenRewards: Tensor;
  /** `[B, T]` */
  readonly rejectedRewards: Tensor;
  /** `[B, T]` 1 / length inside each pair's divergent span (see `pairSpan`), 0 outside and for padding pairs */
  readonly spanWeights: Tensor;
  /** Scalar: pairs of the whole batch, over all micro-shards and learners. */
  readonly denominator: Tensor;
}

/**
 * DeepSpeed-Chat's ranking loss: a comparison at every position of the divergent span, averaged per pair.
 *
 *   loss = Σ_pairs mean_(t in span) −log σ(r_chosen[t] − r_rejected[t]) / denominator
 *
 * The span runs to the longer answer's end, so it compares pad positions of the shorter one.
 * @see DeepSpeedExamples 83757d9c, dschat/utils/model/reward_model.py `forward`
 */
export function spanLoss(input: SpanLossInput): Scalar {
  const { chosenRewards, rejectedRewards, spanWeights, denominator } = input;
  const losses = negativeLogSigmoid(tf.sub(chosenRewards, rejectedRewards));
  return tf.div(tf.sum(tf.mul(losses, spanWeights)), denominator);
}

/** What both losses report, from end scores `[B]` and the pair mask `[B]`. */
export function rewardSums(chosenScores: Tensor, rejectedScores: Tensor, mask: Tensor): RewardLossSums {
  const isCorrect = tf.cast(tf.greater(chosenScores, rejectedScores), "float32");
  return {
    pairs: tf.sum(mask),
    correctSum: tf.sum(tf.mul(isCorrect, mask)),
    chosenScoreSum: tf.sum(tf.mul(chosenScores, mask)),
    rejectedScoreSum: tf.sum(tf.mul(rejectedScores, mask)),
  };
}
