// Original file: proto/troupe/v1/control.proto

import type * as grpc from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import type { ProgressEvent as _troupe_v1_ProgressEvent, ProgressEvent__Output as _troupe_v1_ProgressEvent__Output } from '../../troupe/v1/ProgressEvent.js';
import type { ScaleReply as _troupe_v1_ScaleReply, ScaleReply__Output as _troupe_v1_ScaleReply__Output } from '../../troupe/v1/ScaleReply.js';
import type { ScaleRequest as _troupe_v1_ScaleRequest, ScaleRequest__Output as _troupe_v1_ScaleRequest__Output } from '../../troupe/v1/ScaleRequest.js';
import type { StatusReply as _troupe_v1_StatusReply, StatusReply__Output as _troupe_v1_StatusReply__Output } from '../../troupe/v1/StatusReply.js';
import type { StatusRequest as _troupe_v1_StatusRequest, StatusRequest__Output as _troupe_v1_StatusRequest__Output } from '../../troupe/v1/StatusRequest.js';
import type { StopReply as _troupe_v1_StopReply, StopReply__Output as _troupe_v1_StopReply__Output } from '../../troupe/v1/StopReply.js';
import type { StopRequest as _troupe_v1_StopRequest, StopRequest__Output as _troupe_v1_StopRequest__Output } from '../../troupe/v1/StopRequest.js';
import type { WatchRequest as _troupe_v1_WatchRequest, WatchRequest__Output as _troupe_v1_WatchRequest__Output } from '../../troupe/v1/WatchRequest.js';

/**
 * For people and tools: `troupe status`, `troupe scale`, `troupe stop`, the launcher, dashboards.
 */
export interface ControlServiceClient extends grpc.Client {
  Scale(argument: _troupe_v1_ScaleRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_ScaleReply__Output>): grpc.ClientUnaryCall;
  Scale(argument: _troupe_v1_ScaleRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_troupe_v1_ScaleReply__Output>): grpc.ClientUnaryCall;
  Scale(argument: _troupe_v1_ScaleRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_ScaleReply__Output>): grpc.ClientUnaryCall;
  Scale(argument: _troupe_v1_ScaleRequest, callback: grpc.requestCallback<_troupe_v1_ScaleReply__Output>): grpc.ClientUnaryCall;
  scale(argument: _troupe_v1_ScaleRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_ScaleReply__Output>): grpc.ClientUnaryCall;
  scale(argument: _troupe_v1_ScaleRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_troupe_v1_ScaleReply__Output>): grpc.ClientUnaryCall;
  scale(argument: _troupe_v1_ScaleRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_ScaleReply__Output>): grpc.ClientUnaryCall;
  scale(argument: _troupe_v1_ScaleRequest, callback: grpc.requestCallback<_troupe_v1_ScaleReply__Output>): grpc.ClientUnaryCall;
  
  Status(argument: _troupe_v1_StatusRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_StatusReply__Output>): grpc.ClientUnaryCall;
  Status(argument: _troupe_v1_StatusRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_troupe_v1_StatusReply__Output>): grpc.ClientUnaryCall;
  Status(argument: _troupe_v1_StatusRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_StatusReply__Output>): grpc.ClientUnaryCall;
  Status(argument: _troupe_v1_StatusRequest, callback: grpc.requestCallback<_troupe_v1_StatusReply__Output>): grpc.ClientUnaryCall;
  status(argument: _troupe_v1_StatusRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_StatusReply__Output>): grpc.ClientUnaryCall;
  status(argument: _troupe_v1_StatusRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_troupe_v1_StatusReply__Output>): grpc.ClientUnaryCall;
  status(argument: _troupe_v1_StatusRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_StatusReply__Output>): grpc.ClientUnaryCall;
  status(argument: _troupe_v1_StatusRequest, callback: grpc.requestCallback<_troupe_v1_StatusReply__Output>): grpc.ClientUnaryCall;
  
  /**
   * End the run, for coordinators that stand by as well: workers drain, everybody exits 0. No checkpoint is written: what
   * came after the newest is computed again when the run is continued.
   */
  Stop(argument: _troupe_v1_StopRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_StopReply__Output>): grpc.ClientUnaryCall;
  Stop(argument: _troupe_v1_StopRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_troupe_v1_StopReply__Output>): grpc.ClientUnaryCall;
  Stop(argument: _troupe_v1_StopRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_StopReply__Output>): grpc.ClientUnaryCall;
  Stop(argument: _troupe_v1_StopRequest, callback: grpc.requestCallback<_troupe_v1_StopReply__Output>): grpc.ClientUnaryCall;
  /**
   * End the run, for coordinators that stand by as well: workers drain, everybody exits 0. No checkpoint is written: what
   * came after the newest is computed again when the run is continued.
   */
  stop(argument: _troupe_v1_StopRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_StopReply__Output>): grpc.ClientUnaryCall;
  stop(argument: _troupe_v1_StopRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_troupe_v1_StopReply__Output>): grpc.ClientUnaryCall;
  stop(argument: _troupe_v1_StopRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_StopReply__Output>): grpc.ClientUnaryCall;
  stop(argument: _troupe_v1_StopRequest, callback: grpc.requestCallback<_troupe_v1_StopReply__Output>): grpc.ClientUnaryCall;
  
  /**
   * Progress of the run: everything so far (bounded), then live.
   */
  Watch(argument: _troupe_v1_WatchRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_troupe_v1_ProgressEvent__Output>;
  Watch(argument: _troupe_v1_WatchRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_troupe_v1_ProgressEvent__Output>;
  /**
   * Progress of the run: everything so far (bounded), then live.
   */
  watch(argument: _troupe_v1_WatchRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_troupe_v1_ProgressEvent__Output>;
  watch(argument: _troupe_v1_WatchRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_troupe_v1_ProgressEvent__Output>;
  
}

/**
 * For people and tools: `troupe status`, `troupe scale`, `troupe stop`, the launcher, dashboards.
 */
export interface ControlServiceHandlers extends grpc.UntypedServiceImplementation {
  Scale: grpc.handleUnaryCall<_troupe_v1_ScaleRequest__Output, _troupe_v1_ScaleReply>;
  
  Status: grpc.handleUnaryCall<_troupe_v1_StatusRequest__Output, _troupe_v1_StatusReply>;
  
  /**
   * End the run, for coordinators that stand by as well: workers drain, everybody exits 0. No checkpoint is written: what
   * came after the newest is computed again when the run is continued.
   */
  Stop: grpc.handleUnaryCall<_troupe_v1_StopRequest__Output, _troupe_v1_StopReply>;
  
  /**
   * Progress of the run: everything so far (bounded), then live.
   */
  Watch: grpc.handleServerStreamingCall<_troupe_v1_WatchRequest__Output, _troupe_v1_ProgressEvent>;
  
}

export interface ControlServiceDefinition extends grpc.ServiceDefinition {
  Scale: MethodDefinition<_troupe_v1_ScaleRequest, _troupe_v1_ScaleReply, _troupe_v1_ScaleRequest__Output, _troupe_v1_ScaleReply__Output>
  Status: MethodDefinition<_troupe_v1_StatusRequest, _troupe_v1_StatusReply, _troupe_v1_StatusRequest__Output, _troupe_v1_StatusReply__Output>
  Stop: MethodDefinition<_troupe_v1_StopRequest, _troupe_v1_StopReply, _troupe_v1_StopRequest__Output, _troupe_v1_StopReply__Output>
  Watch: MethodDefinition<_troupe_v1_WatchRequest, _troupe_v1_ProgressEvent, _troupe_v1_WatchRequest__Output, _troupe_v1_ProgressEvent__Output>
}
