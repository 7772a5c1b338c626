// Original file: proto/troupe/v1/membership.proto

import type * as grpc from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import type { HeartbeatReply as _troupe_v1_HeartbeatReply, HeartbeatReply__Output as _troupe_v1_HeartbeatReply__Output } from '../../troupe/v1/HeartbeatReply.js';
import type { HeartbeatRequest as _troupe_v1_HeartbeatRequest, HeartbeatRequest__Output as _troupe_v1_HeartbeatRequest__Output } from '../../troupe/v1/HeartbeatRequest.js';
import type { LeaveReply as _troupe_v1_LeaveReply, LeaveReply__Output as _troupe_v1_LeaveReply__Output } from '../../troupe/v1/LeaveReply.js';
import type { LeaveRequest as _troupe_v1_LeaveRequest, LeaveRequest__Output as _troupe_v1_LeaveRequest__Output } from '../../troupe/v1/LeaveRequest.js';
import type { RegisterReply as _troupe_v1_RegisterReply, RegisterReply__Output as _troupe_v1_RegisterReply__Output } from '../../troupe/v1/RegisterReply.js';
import type { RegisterRequest as _troupe_v1_RegisterRequest, RegisterRequest__Output as _troupe_v1_RegisterRequest__Output } from '../../troupe/v1/RegisterRequest.js';

/**
 * Joining, staying and leaving. A worker registers once per process start, then heartbeats from an event loop that
 * no computation ever blocks.
 */
export interface MembershipClient extends grpc.Client {
  Heartbeat(argument: _troupe_v1_HeartbeatRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_HeartbeatReply__Output>): grpc.ClientUnaryCall;
  Heartbeat(argument: _troupe_v1_HeartbeatRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_troupe_v1_HeartbeatReply__Output>): grpc.ClientUnaryCall;
  Heartbeat(argument: _troupe_v1_HeartbeatRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_HeartbeatReply__Output>): grpc.ClientUnaryCall;
  Heartbeat(argument: _troupe_v1_HeartbeatRequest, callback: grpc.requestCallback<_troupe_v1_HeartbeatReply__Output>): grpc.ClientUnaryCall;
  heartbeat(argument: _troupe_v1_HeartbeatRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_HeartbeatReply__Output>): grpc.ClientUnaryCall;
  heartbeat(argument: _troupe_v1_HeartbeatRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_troupe_v1_HeartbeatReply__Output>): grpc.ClientUnaryCall;
  heartbeat(argument: _troupe_v1_HeartbeatRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_HeartbeatReply__Output>): grpc.ClientUnaryCall;
  heartbeat(argument: _troupe_v1_HeartbeatRequest, callback: grpc.requestCallback<_troupe_v1_HeartbeatReply__Output>): grpc.ClientUnaryCall;
  
  /**
   * Graceful end: the worker has handed back its work.
   */
  Leave(argument: _troupe_v1_LeaveRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_LeaveReply__Output>): grpc.ClientUnaryCall;
  Leave(argument: _troupe_v1_LeaveRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_troupe_v1_LeaveReply__Output>): grpc.ClientUnaryCall;
  Leave(argument: _troupe_v1_LeaveRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_LeaveReply__Output>): grpc.ClientUnaryCall;
  Leave(argument: _troupe_v1_LeaveRequest, callback: grpc.requestCallback<_troupe_v1_LeaveReply__Output>): grpc.ClientUnaryCall;
  /**
   * Graceful end: the worker has handed back its work.
   */
  leave(argument: _troupe_v1_LeaveRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_LeaveReply__Output>): grpc.ClientUnaryCall;
  leave(argument: _troupe_v1_LeaveRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_troupe_v1_LeaveReply__Output>): grpc.ClientUnaryCall;
  leave(argument: _troupe_v1_LeaveRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_LeaveReply__Output>): grpc.ClientUnaryCall;
  leave(argument: _troupe_v1_LeaveRequest, callback: grpc.requestCallback<_troupe_v1_LeaveReply__Output>): grpc.ClientUnaryCall;
  
  Register(argument: _troupe_v1_RegisterRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_RegisterReply__Output>): grpc.ClientUnaryCall;
  Register(argument: _troupe_v1_RegisterRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_troupe_v1_RegisterReply__Output>): grpc.ClientUnaryCall;
  Register(argument: _troupe_v1_RegisterRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_RegisterReply__Output>): grpc.ClientUnaryCall;
  Register(argument: _troupe_v1_RegisterRequest, callback: grpc.requestCallback<_troupe_v1_RegisterReply__Output>): grpc.ClientUnaryCall;
  register(argument: _troupe_v1_RegisterRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_RegisterReply__Output>): grpc.ClientUnaryCall;
  register(argument: _troupe_v1_RegisterRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_troupe_v1_RegisterReply__Output>): grpc.ClientUnaryCall;
  register(argument: _troupe_v1_RegisterRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_RegisterReply__Output>): grpc.ClientUnaryCall;
  register(argument: _troupe_v1_RegisterRequest, callback: grpc.requestCallback<_troupe_v1_RegisterReply__Output>): grpc.ClientUnaryCall;
  
}

/**
 * Joining, staying and leaving. A worker registers once per process start, then heartbeats from an event loop that
 * no computation ever blocks.
 */
export interface MembershipHandlers extends grpc.UntypedServiceImplementation {
  Heartbeat: grpc.handleUnaryCall<_troupe_v1_HeartbeatRequest__Output, _troupe_v1_HeartbeatReply>;
  
  /**
   * Graceful end: the worker has handed back its work.
   */
  Leave: grpc.handleUnaryCall<_troupe_v1_LeaveRequest__Output, _troupe_v1_LeaveReply>;
  
  Register: grpc.handleUnaryCall<_troupe_v1_RegisterRequest__Output, _troupe_v1_RegisterReply>;
  
}

export interface MembershipDefinition extends grpc.ServiceDefinition {
  Heartbeat: MethodDefinition<_troupe_v1_HeartbeatRequest, _troupe_v1_HeartbeatReply, _troupe_v1_HeartbeatRequest__Output, _troupe_v1_HeartbeatReply__Output>
  Leave: MethodDefinition<_troupe_v1_LeaveRequest, _troupe_v1_LeaveReply, _troupe_v1_LeaveRequest__Output, _troupe_v1_LeaveReply__Output>
  Register: MethodDefinition<_troupe_v1_RegisterRequest, _troupe_v1_RegisterReply, _troupe_v1_RegisterRequest__Output, _troupe_v1_RegisterReply__Output>
}
