// Original file: proto/troupe/v1/rollout.proto

import type * as grpc from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import type { RolloutDirective as _troupe_v1_RolloutDirective, RolloutDirective__Output as _troupe_v1_RolloutDirective__Output } from '../../troupe/v1/RolloutDirective.js';
import type { RolloutMessage as _troupe_v1_RolloutMessage, RolloutMessage__Output as _troupe_v1_RolloutMessage__Output } from '../../troupe/v1/RolloutMessage.js';

/**
 * The rollout side. One long-lived stream per rollout worker: the coordinator sends tasks, the worker streams back
 * finished experiences in batches, each experience acknowledged once it is durable. The stream breaking returns the
 * tasks to the queue.
 */
export interface RolloutServiceClient extends grpc.Client {
  Perform(metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientDuplexStream<_troupe_v1_RolloutMessage, _troupe_v1_RolloutDirective__Output>;
  Perform(options?: grpc.CallOptions): grpc.ClientDuplexStream<_troupe_v1_RolloutMessage, _troupe_v1_RolloutDirective__Output>;
  perform(metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientDuplexStream<_troupe_v1_RolloutMessage, _troupe_v1_RolloutDirective__Output>;
  perform(options?: grpc.CallOptions): grpc.ClientDuplexStream<_troupe_v1_RolloutMessage, _troupe_v1_RolloutDirective__Output>;
  
}

/**
 * The rollout side. One long-lived stream per rollout worker: the coordinator sends tasks, the worker streams back
 * finished experiences in batches, each experience acknowledged once it is durable. The stream breaking returns the
 * tasks to the queue.
 */
export interface RolloutServiceHandlers extends grpc.UntypedServiceImplementation {
  Perform: grpc.handleBidiStreamingCall<_troupe_v1_RolloutMessage__Output, _troupe_v1_RolloutDirective>;
  
}

export interface RolloutServiceDefinition extends grpc.ServiceDefinition {
  Perform: MethodDefinition<_troupe_v1_RolloutMessage, _troupe_v1_RolloutDirective, _troupe_v1_RolloutMessage__Output, _troupe_v1_RolloutDirective__Output>
}
