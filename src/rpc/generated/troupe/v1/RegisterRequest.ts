// Original file: proto/troupe/v1/membership.proto

import type { Role as _troupe_v1_Role, Role__Output as _troupe_v1_Role__Output } from '../../troupe/v1/Role.js';
import type { LearnerPosition as _troupe_v1_LearnerPosition, LearnerPosition__Output as _troupe_v1_LearnerPosition__Output } from '../../troupe/v1/LearnerPosition.js';
import type { WorkerMachine as _troupe_v1_WorkerMachine, WorkerMachine__Output as _troupe_v1_WorkerMachine__Output } from '../../troupe/v1/WorkerMachine.js';

export interface RegisterRequest {
  'role'?: (_troupe_v1_Role);
  /**
   * Empty: the coordinator assigns the next free name.
   */
  'workerId'?: (string);
  'host'?: (string);
  'pid'?: (number);
  /**
   * host:port of this process's /metrics, for Prometheus service discovery.
   */
  'metricsAddress'?: (string);
  /**
   * Version of this contract the worker speaks; the coordinator refuses another major version.
   */
  'protocolVersion'?: (number);
  /**
   * Unique per attempt to join; a repeated request gets the same answer.
   */
  'requestId'?: (string);
  /**
   * Learners: the training state they hold; unset for a fresh process.
   */
  'position'?: (_troupe_v1_LearnerPosition | null);
  /**
   * Unset: not checked.
   */
  'machine'?: (_troupe_v1_WorkerMachine | null);
}

export interface RegisterRequest__Output {
  'role': (_troupe_v1_Role__Output);
  /**
   * Empty: the coordinator assigns the next free name.
   */
  'workerId': (string);
  'host': (string);
  'pid': (number);
  /**
   * host:port of this process's /metrics, for Prometheus service discovery.
   */
  'metricsAddress': (string);
  /**
   * Version of this contract the worker speaks; the coordinator refuses another major version.
   */
  'protocolVersion': (number);
  /**
   * Unique per attempt to join; a repeated request gets the same answer.
   */
  'requestId': (string);
  /**
   * Learners: the training state they hold; unset for a fresh process.
   */
  'position': (_troupe_v1_LearnerPosition__Output | null);
  /**
   * Unset: not checked.
   */
  'machine': (_troupe_v1_WorkerMachine__Output | null);
}
