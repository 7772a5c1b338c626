import type * as grpc from '@grpc/grpc-js';
import type { EnumTypeDefinition, MessageTypeDefinition } from '@grpc/proto-loader';

import type { ArtifactRef as _troupe_v1_ArtifactRef, ArtifactRef__Output as _troupe_v1_ArtifactRef__Output } from './troupe/v1/ArtifactRef.js';
import type { CancelTask as _troupe_v1_CancelTask, CancelTask__Output as _troupe_v1_CancelTask__Output } from './troupe/v1/CancelTask.js';
import type { Draining as _troupe_v1_Draining, Draining__Output as _troupe_v1_Draining__Output } from './troupe/v1/Draining.js';
import type { Experience as _troupe_v1_Experience, Experience__Output as _troupe_v1_Experience__Output } from './troupe/v1/Experience.js';
import type { ExperienceAck as _troupe_v1_ExperienceAck, ExperienceAck__Output as _troupe_v1_ExperienceAck__Output } from './troupe/v1/ExperienceAck.js';
import type { ExperienceAcks as _troupe_v1_ExperienceAcks, ExperienceAcks__Output as _troupe_v1_ExperienceAcks__Output } from './troupe/v1/ExperienceAcks.js';
import type { ExperienceBatch as _troupe_v1_ExperienceBatch, ExperienceBatch__Output as _troupe_v1_ExperienceBatch__Output } from './troupe/v1/ExperienceBatch.js';
import type { ModelRef as _troupe_v1_ModelRef, ModelRef__Output as _troupe_v1_ModelRef__Output } from './troupe/v1/ModelRef.js';
import type { PromptRow as _troupe_v1_PromptRow, PromptRow__Output as _troupe_v1_PromptRow__Output } from './troupe/v1/PromptRow.js';
import type { Ready as _troupe_v1_Ready, Ready__Output as _troupe_v1_Ready__Output } from './troupe/v1/Ready.js';
import type { RolloutDirective as _troupe_v1_RolloutDirective, RolloutDirective__Output as _troupe_v1_RolloutDirective__Output } from './troupe/v1/RolloutDirective.js';
import type { RolloutMessage as _troupe_v1_RolloutMessage, RolloutMessage__Output as _troupe_v1_RolloutMessage__Output } from './troupe/v1/RolloutMessage.js';
import type { RolloutServiceClient as _troupe_v1_RolloutServiceClient, RolloutServiceDefinition as _troupe_v1_RolloutServiceDefinition } from './troupe/v1/RolloutService.js';
import type { RolloutTask as _troupe_v1_RolloutTask, RolloutTask__Output as _troupe_v1_RolloutTask__Output } from './troupe/v1/RolloutTask.js';
import type { Sampling as _troupe_v1_Sampling, Sampling__Output as _troupe_v1_Sampling__Output } from './troupe/v1/Sampling.js';
import type { Sender as _troupe_v1_Sender, Sender__Output as _troupe_v1_Sender__Output } from './troupe/v1/Sender.js';
import type { StopTable as _troupe_v1_StopTable, StopTable__Output as _troupe_v1_StopTable__Output } from './troupe/v1/StopTable.js';
import type { TaskDone as _troupe_v1_TaskDone, TaskDone__Output as _troupe_v1_TaskDone__Output } from './troupe/v1/TaskDone.js';
import type { TaskFailed as _troupe_v1_TaskFailed, TaskFailed__Output as _troupe_v1_TaskFailed__Output } from './troupe/v1/TaskFailed.js';
import type { TokenizerInfo as _troupe_v1_TokenizerInfo, TokenizerInfo__Output as _troupe_v1_TokenizerInfo__Output } from './troupe/v1/TokenizerInfo.js';

type SubtypeConstructor<Constructor extends new (...args: any) => any, Subtype> = {
  new(...args: ConstructorParameters<Constructor>): Subtype;
};

export interface ProtoGrpcType {
  troupe: {
    v1: {
      ArtifactRef: MessageTypeDefinition<_troupe_v1_ArtifactRef, _troupe_v1_ArtifactRef__Output>
      CancelTask: MessageTypeDefinition<_troupe_v1_CancelTask, _troupe_v1_CancelTask__Output>
      Draining: MessageTypeDefinition<_troupe_v1_Draining, _troupe_v1_Draining__Output>
      Experience: MessageTypeDefinition<_troupe_v1_Experience, _troupe_v1_Experience__Output>
      ExperienceAck: MessageTypeDefinition<_troupe_v1_ExperienceAck, _troupe_v1_ExperienceAck__Output>
      ExperienceAcks: MessageTypeDefinition<_troupe_v1_ExperienceAcks, _troupe_v1_ExperienceAcks__Output>
      ExperienceBatch: MessageTypeDefinition<_troupe_v1_ExperienceBatch, _troupe_v1_ExperienceBatch__Output>
      FinishReason: EnumTypeDefinition
      ModelRef: MessageTypeDefinition<_troupe_v1_ModelRef, _troupe_v1_ModelRef__Output>
      PromptRow: MessageTypeDefinition<_troupe_v1_PromptRow, _troupe_v1_PromptRow__Output>
      Ready: MessageTypeDefinition<_troupe_v1_Ready, _troupe_v1_Ready__Output>
      Role: EnumTypeDefinition
      RolloutDirective: MessageTypeDefinition<_troupe_v1_RolloutDirective, _troupe_v1_RolloutDirective__Output>
      RolloutMessage: MessageTypeDefinition<_troupe_v1_RolloutMessage, _troupe_v1_RolloutMessage__Output>
      /**
       * The rollout side. One long-lived stream per rollout worker: the coordinator sends tasks, the worker streams back
       * finished experiences in batches, each experience acknowledged once it is durable. The stream breaking returns the
       * tasks to the queue.
       */
      RolloutService: SubtypeConstructor<typeof grpc.Client, _troupe_v1_RolloutServiceClient> & { service: _troupe_v1_RolloutServiceDefinition }
      RolloutTask: MessageTypeDefinition<_troupe_v1_RolloutTask, _troupe_v1_RolloutTask__Output>
      Sampling: MessageTypeDefinition<_troupe_v1_Sampling, _troupe_v1_Sampling__Output>
      Sender: MessageTypeDefinition<_troupe_v1_Sender, _troupe_v1_Sender__Output>
      StopTable: MessageTypeDefinition<_troupe_v1_StopTable, _troupe_v1_StopTable__Output>
      TaskDone: MessageTypeDefinition<_troupe_v1_TaskDone, _troupe_v1_TaskDone__Output>
      TaskFailed: MessageTypeDefinition<_troupe_v1_TaskFailed, _troupe_v1_TaskFailed__Output>
      TokenizerInfo: MessageTypeDefinition<_troupe_v1_TokenizerInfo, _troupe_v1_TokenizerInfo__Output>
    }
  }
}

