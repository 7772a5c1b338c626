import * as tf from "@tensorflow/tfjs";
import type { Tensor } from "@tensorflow/tfjs";
import type { Tensors } from "./engine.js";

export interface LossResult {
  /** Scalar to differentiate. */
  readonly loss: Tensor;
  /** Other tensors to keep from the forward pass, e.g. metrics. */
  readonly aux?: Tensors;
}

export interface ValueAndGradients {
  readonly loss: Tensor;
  readonly aux: Tensors;
  /** One gradient per parameter, zeros where the loss does not depend on it. */
  readonly grads: Tensors;
}

/**
 * Loss, gradients by parameter name, and what the forward pass wants to keep. (`tf.grads` disposes of everything
 * but the loss.) Call it inside a program's body: the caller's tidy owns the results.
 *
 * @param loss must build the loss from the tensors it is given
 */
export function valueAndGradients(params: Tensors, loss: (params: Tensors) => LossResult): ValueAndGradients {
  const names = Object.keys(params);
  const inputs = names.map((name) => params[name]);
  let aux: Tensors = {};
  const forward = () => {
    const result = loss(params);
    aux = mapTensors(result.aux ?? {}, (tensor) => tf.keep(tf.clone(tensor)));
    return result.loss;
  };
  const { value, grads } = tf.engine().gradients(forward, inputs, undefined, true);
  const kept = mapTensors(aux, (tensor) => tf.clone(tensor)); // owned by the caller's tidy from here on
  for (const tensor of Object.values(aux)) tensor.dispose();
  const named = names.map((name, i) => [name, grads[i] ?? tf.zerosLike(inputs[i])] as const);
  return { loss: value, aux: kept, grads: Object.fromEntries(named) };
}

function mapTensors(tensors: Tensors, map: (tensor: Tensor) => Tensor): Tensors {
  return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, map(tensor)]));
}
