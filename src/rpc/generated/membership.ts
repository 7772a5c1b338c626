import type * as grpc from '@grpc/grpc-js';
import type { EnumTypeDefinition, MessageTypeDefinition } from '@grpc/proto-loader';

import type { ArtifactRef as _troupe_v1_ArtifactRef, ArtifactRef__Output as _troupe_v1_ArtifactRef__Output } from './troupe/v1/ArtifactRef.js';
import type { Draining as _troupe_v1_Draining, Draining__Output as _troupe_v1_Draining__Output } from './troupe/v1/Draining.js';
import type { HeartbeatReply as _troupe_v1_HeartbeatReply, HeartbeatReply__Output as _troupe_v1_HeartbeatReply__Output } from './troupe/v1/HeartbeatReply.js';
import type { HeartbeatRequest as _troupe_v1_HeartbeatRequest, HeartbeatRequest__Output as _troupe_v1_HeartbeatRequest__Output } from './troupe/v1/HeartbeatRequest.js';
import type { LearnerPosition as _troupe_v1_LearnerPosition, LearnerPosition__Output as _troupe_v1_LearnerPosition__Output } from './troupe/v1/LearnerPosition.js';
import type { LeaveReply as _troupe_v1_LeaveReply, LeaveReply__Output as _troupe_v1_LeaveReply__Output } from './troupe/v1/LeaveReply.js';
import type { LeaveRequest as _troupe_v1_LeaveRequest, LeaveRequest__Output as _troupe_v1_LeaveRequest__Output } from './troupe/v1/LeaveRequest.js';
import type { MembershipClient as _troupe_v1_MembershipClient, MembershipDefinition as _troupe_v1_MembershipDefinition } from './troupe/v1/Membership.js';
import type { ModelRef as _troupe_v1_ModelRef, ModelRef__Output as _troupe_v1_ModelRef__Output } from './troupe/v1/ModelRef.js';
import type { RegisterReply as _troupe_v1_RegisterReply, RegisterReply__Output as _troupe_v1_RegisterReply__Output } from './troupe/v1/RegisterReply.js';
import type { RegisterRequest as _troupe_v1_RegisterRequest, RegisterRequest__Output as _troupe_v1_RegisterRequest__Output } from './troupe/v1/RegisterRequest.js';
import type { Sender as _troupe_v1_Sender, Sender__Output as _troupe_v1_Sender__Output } from './troupe/v1/Sender.js';
import type { TaskProgress as _troupe_v1_TaskProgress, TaskProgress__Output as _troupe_v1_TaskProgress__Output } from './troupe/v1/TaskProgress.js';
import type { TokenizerInfo as _troupe_v1_TokenizerInfo, TokenizerInfo__Output as _troupe_v1_TokenizerInfo__Output } from './troupe/v1/TokenizerInfo.js';
import type { VotedUpdate as _troupe_v1_VotedUpdate, VotedUpdate__Output as _troupe_v1_VotedUpdate__Output } from './troupe/v1/VotedUpdate.js';
import type { WorkerMachine as _troupe_v1_WorkerMachine, WorkerMachine__Output as _troupe_v1_WorkerMachine__Output } from './troupe/v1/WorkerMachine.js';

type SubtypeConstructor<Constructor extends new (...args: any) => any, Subtype> = {
  new(...args: ConstructorParameters<Constructor>): Subtype;
};

export interface ProtoGrpcType {
  troupe: {
    v1: {
      ArtifactRef: MessageTypeDefinition<_troupe_v1_ArtifactRef, _troupe_v1_ArtifactRef__Output>
      Draining: MessageTypeDefinition<_troupe_v1_Draining, _troupe_v1_Draining__Output>
      HeartbeatReply: MessageTypeDefinition<_troupe_v1_HeartbeatReply, _troupe_v1_HeartbeatReply__Output>
      HeartbeatRequest: MessageTypeDefinition<_troupe_v1_HeartbeatRequest, _troupe_v1_HeartbeatRequest__Output>
      LearnerPosition: MessageTypeDefinition<_troupe_v1_LearnerPosition, _troupe_v1_LearnerPosition__Output>
      LeaveReply: MessageTypeDefinition<_troupe_v1_LeaveReply, _troupe_v1_LeaveReply__Output>
      LeaveRequest: MessageTypeDefinition<_troupe_v1_LeaveRequest, _troupe_v1_LeaveRequest__Output>
      /**
       * Joining, staying and leaving. A worker registers once per process start, then heartbeats from an event loop that
       * no computation ever blocks.
       */
      Membership: SubtypeConstructor<typeof grpc.Client, _troupe_v1_MembershipClient> & { service: _troupe_v1_MembershipDefinition }
      ModelRef: MessageTypeDefinition<_troupe_v1_ModelRef, _troupe_v1_ModelRef__Output>
      RegisterReply: MessageTypeDefinition<_troupe_v1_RegisterReply, _troupe_v1_RegisterReply__Output>
      RegisterRequest: MessageTypeDefinition<_troupe_v1_RegisterRequest, _troupe_v1_RegisterRequest__Output>
      Role: EnumTypeDefinition
      Sender: MessageTypeDefinition<_troupe_v1_Sender, _troupe_v1_Sender__Output>
      TaskProgress: MessageTypeDefinition<_troupe_v1_TaskProgress, _troupe_v1_TaskProgress__Output>
      TokenizerInfo: MessageTypeDefinition<_troupe_v1_TokenizerInfo, _troupe_v1_TokenizerInfo__Output>
      VotedUpdate: MessageTypeDefinition<_troupe_v1_VotedUpdate, _troupe_v1_VotedUpdate__Output>
      WorkerMachine: MessageTypeDefinition<_troupe_v1_WorkerMachine, _troupe_v1_WorkerMachine__Output>
    }
  }
}

