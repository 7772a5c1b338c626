// Original file: proto/troupe/v1/membership.proto

import type { Role as _troupe_v1_Role, Role__Output as _troupe_v1_Role__Output } from '../../troupe/v1/Role.js';

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
}
