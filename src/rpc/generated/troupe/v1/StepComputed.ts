// Original file: proto/troupe/v1/learner.proto


/**
 * The gradients of this learner's micro-shards are computed. Whoever is told of a step and has not said so when its time
 * is over is what the others waited for.
 */
export interface StepComputed {
  'generation'?: (number);
  'step'?: (number);
}

/**
 * The gradients of this learner's micro-shards are computed. Whoever is told of a step and has not said so when its time
 * is over is what the others waited for.
 */
export interface StepComputed__Output {
  'generation': (number);
  'step': (number);
}
