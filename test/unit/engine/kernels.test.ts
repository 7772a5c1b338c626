/** Plain tfjs kernels that losses, optimizers and samplers use, forward on every engine against the reference. */
import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import { afterAll, beforeAll, describe, it } from "vitest";
import type { Engine, Program, Tensors } from "../../../src/engine/engine.js";
import { expectClose } from "./closeness.js";
import { enginesUnderTest, openReference } from "./engines.js";
import { TestRandom } from "./random.js";

type Inputs = { x: Tensor; y: Tensor; n: Tensor };

/** x and y: float `[3, 4]` in (−2, 2); n: int `[3, 4]` in [0, 4). */
const GROUPS: Readonly<Record<string, (inputs: Inputs) => Tensors>> = {
  arithmetic: ({ x, y, n }) => ({
    add: tf.add(x, y),
    sub: tf.sub(x, 1.5),
    mul: tf.mul(x, tf.tensor1d([1, 2, 3, 4])),
    div: tf.div(x, tf.add(tf.abs(y), 1)),
    pow: tf.pow(tf.abs(x), tf.scalar(1.7)),
    maximum: tf.maximum(x, y),
    minimum: tf.minimum(x, 0.25),
    squaredDifference: tf.squaredDifference(x, y),
    floorDiv: tf.floorDiv(tf.sub(n, 2), tf.scalar(3, "int32")),
    addN: tf.addN([x, y, x] as tf.Tensor2D[]),
  }),
  functions: ({ x, y }) => ({
    exp: tf.exp(x),
    expm1Small: tf.expm1(tf.mul(x, 1e-4)),
    expm1: tf.expm1(x),
    log: tf.log(tf.abs(x)),
    log1pSmall: tf.log1p(tf.mul(x, 1e-4)),
    log1p: tf.log1p(tf.abs(y)),
    sqrt: tf.sqrt(tf.abs(x)),
    rsqrt: tf.rsqrt(tf.add(tf.abs(x), 0.1)),
    square: tf.square(x),
    reciprocal: tf.reciprocal(tf.add(tf.abs(x), 0.5)),
    neg: tf.neg(x),
    sign: tf.sign(x),
    floor: tf.floor(x),
    ceil: tf.ceil(x),
    round: tf.round(x),
    sin: tf.sin(x),
    cos: tf.cos(x),
    tanh: tf.tanh(x),
    erf: tf.erf(x),
    sigmoid: tf.sigmoid(x),
    softplus: tf.softplus(x),
    logSigmoid: tf.logSigmoid(tf.mul(x, 20)),
    relu: tf.relu(x),
    relu6: tf.relu6(tf.mul(x, 5)),
    elu: tf.elu(x),
    step: tf.step(x, 0.5),
    clip: tf.clipByValue(x, -0.5, 0.75),
  }),
  logic: ({ x, y, n }) => ({
    equal: tf.equal(n, 2),
    notEqual: tf.notEqual(n, 2),
    greater: tf.greater(x, y),
    greaterEqual: tf.greaterEqual(n, 2),
    less: tf.less(x, y),
    lessEqual: tf.lessEqual(n, 2),
    and: tf.logicalAnd(tf.greater(x, 0), tf.greater(y, 0)),
    or: tf.logicalOr(tf.greater(x, 0), tf.greater(y, 0)),
    not: tf.logicalNot(tf.greater(x, 0)),
    where: tf.where(tf.greater(x, 0), x, y),
    whereBroadcast: tf.where(tf.tensor1d([true, false, true, false], "bool"), x, tf.scalar(9)),
    castToInt: tf.cast(tf.mul(x, 10), "int32"),
    castToFloat: tf.cast(n, "float32"),
    castToBool: tf.cast(n, "bool"),
  }),
  "non-finite values": ({ x }) => ({
    isNaN: tf.isNaN(tf.log(tf.sub(x, 1))),
    isFinite: tf.isFinite(tf.log(tf.relu(x))),
  }),
  reductions: ({ x, n }) => ({
    sum: tf.sum(x),
    sumRows: tf.sum(x, 0),
    sumLast: tf.sum(x, -1, true),
    sumInts: tf.sum(n, 1),
    sumBools: tf.sum(tf.cast(tf.greater(x, 0), "int32"), 0),
    mean: tf.mean(x, 1),
    max: tf.max(x, 0),
    min: tf.min(x, -1),
    prod: tf.prod(x, 1),
    all: tf.all(tf.greater(x, -1.5), 1),
    any: tf.any(tf.greater(x, 1.5), 1),
    argMax: tf.argMax(x, -1),
    argMin: tf.argMin(x, 0),
    cumsum: tf.cumsum(x, 1),
    cumsumBack: tf.cumsum(x, 1, true, true),
    topValues: tf.topk(x, 2).values,
    topIndices: tf.topk(x, 2).indices,
    softmax: tf.softmax(x),
    logSoftmax: tf.logSoftmax(x),
    logSumExp: tf.logSumExp(x, 1),
    norm: tf.norm(x),
  }),
  shapes: ({ x, y, n }) => ({
    reshape: tf.reshape(x, [2, 6]),
    expandDims: tf.expandDims(x, 1),
    squeeze: tf.squeeze(tf.expandDims(x, 0)),
    transpose: tf.transpose(x),
    concat: tf.concat([x, y], 1),
    stack: tf.stack([x, y], 1),
    unstack: tf.unstack(x, 1)[2],
    split: tf.split(x, [1, 3], 1)[1],
    slice: tf.slice(x, [1, 1], [2, -1]),
    stridedSlice: tf.stridedSlice(x, [2, 3], [-5, 0], [-1, -2]),
    reverse: tf.reverse(x, 1),
    pad: tf.pad(x, [[1, 0], [0, 2]] as [number, number][], 7), // prettier-ignore
    tile: tf.tile(x, [2, 1]),
    broadcastTo: tf.broadcastTo(tf.slice(x, [0, 0], [1, 4]), [5, 4]),
    gatherRows: tf.gather(x, tf.tensor1d([2, 0, 2], "int32")),
    gatherColumns: tf.gather(x, tf.tensor1d([3, 1], "int32"), 1),
    gatherNd: tf.gatherND(x, tf.tensor2d([[0, 1], [2, 3]], [2, 2], "int32")), // prettier-ignore
    scatterNd: tf.scatterND(tf.tensor2d([1, 4, 1], [3, 1], "int32"), tf.tensor1d([1, 2, 3]), [6]),
    segmentSum: tf.unsortedSegmentSum(x, tf.tensor1d([1, 0, 1], "int32"), 3),
    oneHot: tf.oneHot(tf.reshape(n, [-1]) as tf.Tensor1D, 4),
    oneHotValues: tf.oneHot(tf.tensor1d([0, -1, 9], "int32"), 3, 2, -2, "float32"),
    matMul: tf.matMul(x, y, false, true),
    batchMatMul: tf.matMul(tf.reshape(x, [3, 2, 2]), tf.reshape(y, [3, 2, 2]), true, false),
    zerosLike: tf.zerosLike(x),
    onesLike: tf.onesLike(n),
    range: tf.add(tf.range(0, 4, 1, "int32"), n),
    fill: tf.add(tf.fill([3, 4], 2.5), x),
  }),
};

describe.each(enginesUnderTest)("$title", ({ title, missing, open }) => {
  if (missing !== null) {
    it.skip(`kernels (skipped: ${missing})`, () => {});
    return;
  }
  let engine: Engine;
  let reference: Engine;
  beforeAll(async () => {
    engine = await open(1);
    reference = await openReference(1);
  });
  afterAll(async () => {
    await engine.dispose();
    await reference.dispose();
  });

  // WGSL lets an implementation assume that there are no NaNs and infinities.
  const groups = Object.keys(GROUPS).filter(
    (group) => !(title.endsWith("webgpu") && group.startsWith("non-finite")),
  );
  it.each(groups)("runs the kernels of %s as the reference does", async (group) => {
    const float = { shape: [3, 4], dtype: "float32" } as const;
    const program: Program = {
      key: group,
      arenas: {},
      inputs: { x: float, y: float, n: { shape: [3, 4], dtype: "int32" } },
      body: (_arenas, inputs) => ({ outputs: GROUPS[group](inputs as unknown as Inputs) }),
    };
    const random = new TestRandom(4);
    const inputs = { x: random.floats(12, 2), y: random.floats(12, 2), n: random.ints(12, 4) };
    const expected = await (await reference.compile(program)).run({}, inputs);
    const actual = await (await engine.compile(program)).run({}, inputs);
    expectClose(actual, expected, 2e-6);
  });
});
