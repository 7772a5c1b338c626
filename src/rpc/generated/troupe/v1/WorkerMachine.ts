// Original file: proto/troupe/v1/membership.proto

import type { Long } from '@grpc/proto-loader';

/**
 * What a worker's machine has, and must hold: the coordinator refuses workers that will not fit it.
 */
export interface WorkerMachine {
  /**
   * Memory that its processes may use altogether (a container's limit counts), bytes.
   */
  'memoryBytes'?: (number | string | Long);
  /**
   * Workers started there together, the sender included.
   */
  'rollouts'?: (number);
  'learners'?: (number);
}

/**
 * What a worker's machine has, and must hold: the coordinator refuses workers that will not fit it.
 */
export interface WorkerMachine__Output {
  /**
   * Memory that its processes may use altogether (a container's limit counts), bytes.
   */
  'memoryBytes': (number);
  /**
   * Workers started there together, the sender included.
   */
  'rollouts': (number);
  'learners': (number);
}
