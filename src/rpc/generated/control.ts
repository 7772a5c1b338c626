import type * as grpc from '@grpc/grpc-js';
import type { MessageTypeDefinition } from '@grpc/proto-loader';

import type { ControlServiceClient as _troupe_v1_ControlServiceClient, ControlServiceDefinition as _troupe_v1_ControlServiceDefinition } from './troupe/v1/ControlService.js';
import type { Ledger as _troupe_v1_Ledger, Ledger__Output as _troupe_v1_Ledger__Output } from './troupe/v1/Ledger.js';
import type { ProgressEvent as _troupe_v1_ProgressEvent, ProgressEvent__Output as _troupe_v1_ProgressEvent__Output } from './troupe/v1/ProgressEvent.js';
import type { ScaleReply as _troupe_v1_ScaleReply, ScaleReply__Output as _troupe_v1_ScaleReply__Output } from './troupe/v1/ScaleReply.js';
import type { ScaleRequest as _troupe_v1_ScaleRequest, ScaleRequest__Output as _troupe_v1_ScaleRequest__Output } from './troupe/v1/ScaleRequest.js';
import type { StatusReply as _troupe_v1_StatusReply, StatusReply__Output as _troupe_v1_StatusReply__Output } from './troupe/v1/StatusReply.js';
import type { StatusRequest as _troupe_v1_StatusRequest, StatusRequest__Output as _troupe_v1_StatusRequest__Output } from './troupe/v1/StatusRequest.js';
import type { StopReply as _troupe_v1_StopReply, StopReply__Output as _troupe_v1_StopReply__Output } from './troupe/v1/StopReply.js';
import type { StopRequest as _troupe_v1_StopRequest, StopRequest__Output as _troupe_v1_StopRequest__Output } from './troupe/v1/StopRequest.js';
import type { WatchRequest as _troupe_v1_WatchRequest, WatchRequest__Output as _troupe_v1_WatchRequest__Output } from './troupe/v1/WatchRequest.js';
import type { WorkerStatus as _troupe_v1_WorkerStatus, WorkerStatus__Output as _troupe_v1_WorkerStatus__Output } from './troupe/v1/WorkerStatus.js';

type SubtypeConstructor<Constructor extends new (...args: any) => any, Subtype> = {
  new(...args: ConstructorParameters<Constructor>): Subtype;
};

export interface ProtoGrpcType {
  troupe: {
    v1: {
      /**
       * For people and tools: `troupe status`, `troupe scale`, `troupe stop`, the launcher, dashboards.
       */
      ControlService: SubtypeConstructor<typeof grpc.Client, _troupe_v1_ControlServiceClient> & { service: _troupe_v1_ControlServiceDefinition }
      Ledger: MessageTypeDefinition<_troupe_v1_Ledger, _troupe_v1_Ledger__Output>
      ProgressEvent: MessageTypeDefinition<_troupe_v1_ProgressEvent, _troupe_v1_ProgressEvent__Output>
      ScaleReply: MessageTypeDefinition<_troupe_v1_ScaleReply, _troupe_v1_ScaleReply__Output>
      ScaleRequest: MessageTypeDefinition<_troupe_v1_ScaleRequest, _troupe_v1_ScaleRequest__Output>
      StatusReply: MessageTypeDefinition<_troupe_v1_StatusReply, _troupe_v1_StatusReply__Output>
      StatusRequest: MessageTypeDefinition<_troupe_v1_StatusRequest, _troupe_v1_StatusRequest__Output>
      StopReply: MessageTypeDefinition<_troupe_v1_StopReply, _troupe_v1_StopReply__Output>
      StopRequest: MessageTypeDefinition<_troupe_v1_StopRequest, _troupe_v1_StopRequest__Output>
      WatchRequest: MessageTypeDefinition<_troupe_v1_WatchRequest, _troupe_v1_WatchRequest__Output>
      WorkerStatus: MessageTypeDefinition<_troupe_v1_WorkerStatus, _troupe_v1_WorkerStatus__Output>
    }
  }
}

