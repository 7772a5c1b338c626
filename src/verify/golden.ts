/**
 * Recomputes every case of a golden file with the functions that training uses. What differs is converted here, at
 * the edge: the file pads rows to one width, prompts on the left; the product's rows are unpadded.
 */
import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import type { Engine, HostArrays, Program, Tensors } from "../engine/engine.js";
import { valueAndGradients } from "../engine/gradients.js";
import { headLogprobs } from "../engine/ops.js";
import { dataError } from "../shared/errors.js";
import { actionMaskOf, countedTokens } from "../rl/action-mask.js";
import { computeGae } from "../rl/gae.js";
import { MiniDataset } from "../rl/mini-dataset.js";
import { pairSpan, scorePosition } from "../rl/pair-span.js";
import { policyLoss, type PolicyLossInput } from "../rl/policy-loss.js";
import { spanLoss } from "../rl/reward-loss.js";
import { computeRewards, sequenceReward } from "../rl/rewards.js";
import { valueLoss, type ValueLossInput } from "../rl/value-loss.js";
import { ErrorTable, type QuantityError } from "./error-table.js";
import {
  readGoldenFile,
  type GatherCase,
  type MiniDatasetCase,
  type PpoCase,
  type RewardCase,
} from "./golden-file.js";

/**
 * @param engine computes losses, gradients and log-probs
 * @throws {TroupeError} DATA for a file that is missing or malformed
 */
export async function verifyGolden(path: string, engine: Engine): Promise<QuantityError[]> {
  const golden = await readGoldenFile(path);
  const table = new ErrorTable();
  const recompute = async <T>(
    cases: readonly T[],
    section: string,
    verify: (golden: T, key: string) => unknown,
  ) => {
    for (const [i, golden] of cases.entries()) {
      const key = `${path}: ${section}[${i}]`;
      try {
        await verify(golden, key);
      } catch (cause) {
        throw dataError(`${key} cannot be recomputed: its shapes do not fit together`, { cause });
      }
    }
  };
  await recompute(golden.ppo, "ppo", (ppo, key) => verifyPpo(ppo, key, engine, table));
  await recompute(golden.reward, "reward", (reward, key) => verifyReward(reward, key, engine, table));
  await recompute(golden.miniDataset, "miniDataset", (dataset) => verifyMiniDataset(dataset, table));
  await recompute(golden.gatherLogProbs, "gatherLogProbs", (gather, key) =>
    verifyGather(gather, key, engine, table),
  );
  return table.quantities;
}

/** A row cut to `length` entries becomes the product's; padded back with zeros it is comparable to the file's. */
const cut = (row: readonly number[], first: number, end: number): Float32Array =>
  Float32Array.from(row.slice(first, end));
const padded = (row: ArrayLike<number>, width: number): number[] =>
  Array.from({ length: width }, (_, i) => row[i] ?? 0);

async function verifyPpo(golden: PpoCase, key: string, engine: Engine, table: ErrorTable): Promise<void> {
  const { promptWidth, padId, klCtl, gamma, lam, expected } = golden;
  const start = promptWidth - 1;
  const width = golden.inputIds[0].length - 1;
  // An answer ends with its first pad, which stands for EOS; the file's `ends` is one past that action.
  const responses = golden.inputIds.map((ids) => {
    const firstPad = ids.indexOf(padId, promptWidth);
    return Int32Array.from(ids.slice(promptWidth, firstPad === -1 ? undefined : firstPad + 1));
  });
  const masks = responses.map((ids) => actionMaskOf(ids, { eosId: padId, padId }));
  const ends = masks.map((mask) => start + countedTokens(mask) + 1);
  table.compare("ends", ends, expected.ends);

  const scoreOptions = {
    scoreShift: 0,
    scoreScale: 1,
    clipRewardValue: golden.clipRewardValue,
    missingEosPenalty: 0,
  };
  // The file rewards prompt positions too; the formula per token is the same there.
  const rewards = golden.scores.map((score, b) =>
    computeRewards(
      cut(golden.logprobs[b], 0, ends[b]),
      cut(golden.refLogprobs[b], 0, ends[b]),
      sequenceReward(score, false, scoreOptions),
      klCtl,
    ),
  );
  table.compare(
    "rewards",
    rewards.map((row) => padded(row, width)),
    expected.rewards,
  );
  const values = golden.values.map((row, b) => cut(row, 0, ends[b]));
  table.compare(
    "valuesZeroed",
    values.map((row) => padded(row, width)),
    expected.valuesZeroed,
  );
  const gae = rewards.map((row, b) =>
    computeGae(row.subarray(start), values[b].subarray(start), { gamma, lam }),
  );
  table.compare(
    "advantages",
    gae.map((row) => padded(row.advantages, width - start)),
    expected.advantages,
  );
  table.compare(
    "returns",
    gae.map((row) => padded(row.returns, width - start)),
    expected.returns,
  );

  const columns = width - start;
  const tokens = masks.reduce((sum, mask) => sum + countedTokens(mask), 0);
  const answers = (rows: readonly (readonly number[])[]) => flat(rows.map((row) => row.slice(start)));
  const shared = {
    mask: flat(masks.map((mask) => padded(mask, columns))),
    denominator: Float32Array.of(tokens),
  };
  const shape = [golden.inputIds.length, columns];
  const actor = await lossAndGradient(
    engine,
    `${key} actor`,
    shape,
    "logprobs",
    (t: PolicyLossInput) => policyLoss(t, golden).loss,
    {
      ...shared,
      logprobs: answers(golden.newLogprobs),
      oldLogprobs: answers(golden.logprobs),
      advantages: flat(gae.map((row) => padded(row.advantages, columns))),
    },
  );
  const critic = await lossAndGradient(
    engine,
    `${key} critic`,
    shape,
    "values",
    (t: ValueLossInput) => valueLoss(t, golden).loss,
    {
      ...shared,
      values: answers(golden.newValues),
      oldValues: flat(values.map((row) => padded(row.subarray(start), columns))),
      returns: flat(gae.map((row) => padded(row.returns, columns))),
    },
  );
  const prompts = (row: number[]) => [...new Array<number>(start).fill(0), ...row];
  table.compare("actorLoss", actor.loss, expected.actorLoss);
  table.compare(
    "dActorLoss_dNewLogprobs",
    rowsOf(actor.gradient, columns).map(prompts),
    expected.dActorLoss_dNewLogprobs,
  );
  table.compare("criticLoss", critic.loss, expected.criticLoss);
  table.compare(
    "dCriticLoss_dNewValues",
    rowsOf(critic.gradient, columns).map(prompts),
    expected.dCriticLoss_dNewValues,
  );
}

async function verifyReward(
  golden: RewardCase,
  key: string,
  engine: Engine,
  table: ErrorTable,
): Promise<void> {
  const { padId, numPaddingAtBeginning, promptLength, tokenRewards, expected } = golden;
  const pairs = golden.chosenIds.length;
  const width = golden.chosenIds[0].length;
  const chosen = golden.chosenIds.map((ids) => Int32Array.from(ids));
  const spans = chosen.map((ids, b) =>
    pairSpan(ids, Int32Array.from(golden.rejectedIds[b]), width, { padId, numPaddingAtBeginning }),
  );
  table.compare(
    "chosenEndScores",
    spans.map((span, b) => tokenRewards[b][span.chosenEnd - 1]),
    expected.chosenEndScores,
  );
  table.compare(
    "rejectedEndScores",
    spans.map((span, b) => tokenRewards[pairs + b][span.rejectedEnd - 1]),
    expected.rejectedEndScores,
  );
  const scores = chosen.map((ids, b) => tokenRewards[b][scorePosition(ids, promptLength, padId)]);
  table.compare("forwardValueChosenEndScores", scores, expected.forwardValueChosenEndScores);

  const weights = spans.map(({ start, end }) =>
    Array.from({ length: width }, (_, t) => (t >= start && t < end ? 1 / (end - start) : 0)),
  );
  const loss = (t: { tokenRewards: Tensor; weights: Tensor; denominator: Tensor }) => {
    const [chosenRewards, rejectedRewards] = tf.split(t.tokenRewards, 2);
    return spanLoss({
      chosenRewards,
      rejectedRewards,
      spanWeights: tf.slice(t.weights, [0, 0], [pairs, width]),
      denominator: t.denominator,
    });
  };
  const result = await lossAndGradient(engine, `${key} span`, [2 * pairs, width], "tokenRewards", loss, {
    tokenRewards: flat(tokenRewards),
    weights: flat([...weights, ...weights]),
    denominator: Float32Array.of(pairs),
  });
  table.compare("rewardLoss", result.loss, expected.loss);
  table.compare("dLoss_dTokenRewards", rowsOf(result.gradient, width), expected.dLoss_dTokenRewards);
}

function verifyMiniDataset(golden: MiniDatasetCase, table: ErrorTable): void {
  const dataset = new MiniDataset<number>(golden.maxSize, golden.smallBatchSize);
  let next = 0;
  const returned = golden.addedSizes.map((size) => dataset.add(Array.from({ length: size }, () => next++)));
  table.compare("miniDataset", returned, golden.expected);
}

/** The logits enter as hidden states under an identity head: the op of training, and nothing else. */
async function verifyGather(
  golden: GatherCase,
  key: string,
  engine: Engine,
  table: ErrorTable,
): Promise<void> {
  const vocabulary = golden.logits[0][0].length;
  const hidden = golden.logits.flatMap((rows) => rows.slice(0, -1)); // the last position predicts nothing
  const labels = golden.inputIds.flatMap((ids) => ids.slice(1));
  const program: Program = {
    key: `verify ${key}`,
    arenas: {},
    inputs: {
      hidden: { shape: [hidden.length, vocabulary], dtype: "float32" },
      head: { shape: [vocabulary, vocabulary], dtype: "float32" },
      labels: { shape: [labels.length], dtype: "int32" },
    },
    body: (_arenas, t) => ({ outputs: { logprobs: headLogprobs(t.hidden, t.head, t.labels, 1).logprobs } }),
  };
  const identity = new Float32Array(vocabulary * vocabulary);
  for (let v = 0; v < vocabulary; v++) identity[v * vocabulary + v] = 1;
  const inputs = { hidden: flat(hidden), head: identity, labels: Int32Array.from(labels) };
  const { logprobs } = await (await engine.compile(program)).run({}, inputs);
  table.compare(
    "gatherLogProbs",
    rowsOf(logprobs as Float32Array, golden.inputIds[0].length - 1),
    golden.expected.logprobs,
  );
}

/** Runs a loss over `shape` tensors and the scalar `denominator` as one program, with its gradient by one of them. */
async function lossAndGradient(
  engine: Engine,
  key: string,
  shape: readonly number[],
  by: string,
  loss: (tensors: never) => Tensor,
  inputs: HostArrays,
): Promise<{ loss: number; gradient: Float32Array }> {
  const program: Program = {
    key: `verify ${key}`,
    arenas: {},
    inputs: Object.fromEntries(
      Object.keys(inputs).map((name) => [
        name,
        { shape: name === "denominator" ? [] : shape, dtype: "float32" as const },
      ]),
    ),
    body: (_arenas, tensors: Tensors) => {
      const result = valueAndGradients({ [by]: tensors[by] }, (params) => ({
        loss: loss({ ...tensors, ...params } as never),
      }));
      return { outputs: { loss: result.loss, gradient: result.grads[by] } };
    },
  };
  const outputs = await (await engine.compile(program)).run({}, inputs);
  return { loss: outputs.loss[0], gradient: outputs.gradient as Float32Array };
}

const flat = (rows: readonly (readonly number[])[]): Float32Array => Float32Array.from(rows.flat());
const rowsOf = (values: Float32Array, columns: number): number[][] =>
  Array.from({ length: values.length / columns }, (_, b) =>
    Array.from(values.subarray(b * columns, (b + 1) * columns)),
  );
