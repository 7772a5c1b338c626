import type * as grpc from '@grpc/grpc-js';
import type { EnumTypeDefinition, MessageTypeDefinition } from '@grpc/proto-loader';

import type { AbortStep as _troupe_v1_AbortStep, AbortStep__Output as _troupe_v1_AbortStep__Output } from './troupe/v1/AbortStep.js';
import type { ApplyVoted as _troupe_v1_ApplyVoted, ApplyVoted__Output as _troupe_v1_ApplyVoted__Output } from './troupe/v1/ApplyVoted.js';
import type { ArtifactRef as _troupe_v1_ArtifactRef, ArtifactRef__Output as _troupe_v1_ArtifactRef__Output } from './troupe/v1/ArtifactRef.js';
import type { AverageParameters as _troupe_v1_AverageParameters, AverageParameters__Output as _troupe_v1_AverageParameters__Output } from './troupe/v1/AverageParameters.js';
import type { CommitStep as _troupe_v1_CommitStep, CommitStep__Output as _troupe_v1_CommitStep__Output } from './troupe/v1/CommitStep.js';
import type { Contributor as _troupe_v1_Contributor, Contributor__Output as _troupe_v1_Contributor__Output } from './troupe/v1/Contributor.js';
import type { Draining as _troupe_v1_Draining, Draining__Output as _troupe_v1_Draining__Output } from './troupe/v1/Draining.js';
import type { Evaluate as _troupe_v1_Evaluate, Evaluate__Output as _troupe_v1_Evaluate__Output } from './troupe/v1/Evaluate.js';
import type { EvaluateDone as _troupe_v1_EvaluateDone, EvaluateDone__Output as _troupe_v1_EvaluateDone__Output } from './troupe/v1/EvaluateDone.js';
import type { Exchange as _troupe_v1_Exchange, Exchange__Output as _troupe_v1_Exchange__Output } from './troupe/v1/Exchange.js';
import type { ExperienceRows as _troupe_v1_ExperienceRows, ExperienceRows__Output as _troupe_v1_ExperienceRows__Output } from './troupe/v1/ExperienceRows.js';
import type { GradientBucket as _troupe_v1_GradientBucket, GradientBucket__Output as _troupe_v1_GradientBucket__Output } from './troupe/v1/GradientBucket.js';
import type { GradientChunk as _troupe_v1_GradientChunk, GradientChunk__Output as _troupe_v1_GradientChunk__Output } from './troupe/v1/GradientChunk.js';
import type { GradientHeader as _troupe_v1_GradientHeader, GradientHeader__Output as _troupe_v1_GradientHeader__Output } from './troupe/v1/GradientHeader.js';
import type { Hello as _troupe_v1_Hello, Hello__Output as _troupe_v1_Hello__Output } from './troupe/v1/Hello.js';
import type { LanguageRows as _troupe_v1_LanguageRows, LanguageRows__Output as _troupe_v1_LanguageRows__Output } from './troupe/v1/LanguageRows.js';
import type { LearnerBehind as _troupe_v1_LearnerBehind, LearnerBehind__Output as _troupe_v1_LearnerBehind__Output } from './troupe/v1/LearnerBehind.js';
import type { LearnerDirective as _troupe_v1_LearnerDirective, LearnerDirective__Output as _troupe_v1_LearnerDirective__Output } from './troupe/v1/LearnerDirective.js';
import type { LearnerFailure as _troupe_v1_LearnerFailure, LearnerFailure__Output as _troupe_v1_LearnerFailure__Output } from './troupe/v1/LearnerFailure.js';
import type { LearnerMessage as _troupe_v1_LearnerMessage, LearnerMessage__Output as _troupe_v1_LearnerMessage__Output } from './troupe/v1/LearnerMessage.js';
import type { LearnerServiceClient as _troupe_v1_LearnerServiceClient, LearnerServiceDefinition as _troupe_v1_LearnerServiceDefinition } from './troupe/v1/LearnerService.js';
import type { ModelRef as _troupe_v1_ModelRef, ModelRef__Output as _troupe_v1_ModelRef__Output } from './troupe/v1/ModelRef.js';
import type { PreferenceRows as _troupe_v1_PreferenceRows, PreferenceRows__Output as _troupe_v1_PreferenceRows__Output } from './troupe/v1/PreferenceRows.js';
import type { PublishDone as _troupe_v1_PublishDone, PublishDone__Output as _troupe_v1_PublishDone__Output } from './troupe/v1/PublishDone.js';
import type { PublishState as _troupe_v1_PublishState, PublishState__Output as _troupe_v1_PublishState__Output } from './troupe/v1/PublishState.js';
import type { Reducer as _troupe_v1_Reducer, Reducer__Output as _troupe_v1_Reducer__Output } from './troupe/v1/Reducer.js';
import type { RoundPart as _troupe_v1_RoundPart, RoundPart__Output as _troupe_v1_RoundPart__Output } from './troupe/v1/RoundPart.js';
import type { RoundTrained as _troupe_v1_RoundTrained, RoundTrained__Output as _troupe_v1_RoundTrained__Output } from './troupe/v1/RoundTrained.js';
import type { RunShape as _troupe_v1_RunShape, RunShape__Output as _troupe_v1_RunShape__Output } from './troupe/v1/RunShape.js';
import type { Sender as _troupe_v1_Sender, Sender__Output as _troupe_v1_Sender__Output } from './troupe/v1/Sender.js';
import type { SetupDone as _troupe_v1_SetupDone, SetupDone__Output as _troupe_v1_SetupDone__Output } from './troupe/v1/SetupDone.js';
import type { SetupStage as _troupe_v1_SetupStage, SetupStage__Output as _troupe_v1_SetupStage__Output } from './troupe/v1/SetupStage.js';
import type { Shard as _troupe_v1_Shard, Shard__Output as _troupe_v1_Shard__Output } from './troupe/v1/Shard.js';
import type { ShardStats as _troupe_v1_ShardStats, ShardStats__Output as _troupe_v1_ShardStats__Output } from './troupe/v1/ShardStats.js';
import type { StepApplied as _troupe_v1_StepApplied, StepApplied__Output as _troupe_v1_StepApplied__Output } from './troupe/v1/StepApplied.js';
import type { StepComputed as _troupe_v1_StepComputed, StepComputed__Output as _troupe_v1_StepComputed__Output } from './troupe/v1/StepComputed.js';
import type { StepRows as _troupe_v1_StepRows, StepRows__Output as _troupe_v1_StepRows__Output } from './troupe/v1/StepRows.js';
import type { StepVote as _troupe_v1_StepVote, StepVote__Output as _troupe_v1_StepVote__Output } from './troupe/v1/StepVote.js';
import type { StopTraining as _troupe_v1_StopTraining, StopTraining__Output as _troupe_v1_StopTraining__Output } from './troupe/v1/StopTraining.js';
import type { TokenizerInfo as _troupe_v1_TokenizerInfo, TokenizerInfo__Output as _troupe_v1_TokenizerInfo__Output } from './troupe/v1/TokenizerInfo.js';
import type { TrainStep as _troupe_v1_TrainStep, TrainStep__Output as _troupe_v1_TrainStep__Output } from './troupe/v1/TrainStep.js';
import type { TreeNode as _troupe_v1_TreeNode, TreeNode__Output as _troupe_v1_TreeNode__Output } from './troupe/v1/TreeNode.js';

type SubtypeConstructor<Constructor extends new (...args: any) => any, Subtype> = {
  new(...args: ConstructorParameters<Constructor>): Subtype;
};

export interface ProtoGrpcType {
  troupe: {
    v1: {
      AbortStep: MessageTypeDefinition<_troupe_v1_AbortStep, _troupe_v1_AbortStep__Output>
      ApplyVoted: MessageTypeDefinition<_troupe_v1_ApplyVoted, _troupe_v1_ApplyVoted__Output>
      ArtifactRef: MessageTypeDefinition<_troupe_v1_ArtifactRef, _troupe_v1_ArtifactRef__Output>
      AverageParameters: MessageTypeDefinition<_troupe_v1_AverageParameters, _troupe_v1_AverageParameters__Output>
      CommitStep: MessageTypeDefinition<_troupe_v1_CommitStep, _troupe_v1_CommitStep__Output>
      Contributor: MessageTypeDefinition<_troupe_v1_Contributor, _troupe_v1_Contributor__Output>
      Draining: MessageTypeDefinition<_troupe_v1_Draining, _troupe_v1_Draining__Output>
      Evaluate: MessageTypeDefinition<_troupe_v1_Evaluate, _troupe_v1_Evaluate__Output>
      EvaluateDone: MessageTypeDefinition<_troupe_v1_EvaluateDone, _troupe_v1_EvaluateDone__Output>
      Exchange: MessageTypeDefinition<_troupe_v1_Exchange, _troupe_v1_Exchange__Output>
      ExperienceRows: MessageTypeDefinition<_troupe_v1_ExperienceRows, _troupe_v1_ExperienceRows__Output>
      GradientBucket: MessageTypeDefinition<_troupe_v1_GradientBucket, _troupe_v1_GradientBucket__Output>
      GradientChunk: MessageTypeDefinition<_troupe_v1_GradientChunk, _troupe_v1_GradientChunk__Output>
      GradientHeader: MessageTypeDefinition<_troupe_v1_GradientHeader, _troupe_v1_GradientHeader__Output>
      Hello: MessageTypeDefinition<_troupe_v1_Hello, _troupe_v1_Hello__Output>
      LanguageRows: MessageTypeDefinition<_troupe_v1_LanguageRows, _troupe_v1_LanguageRows__Output>
      LearnerBehind: MessageTypeDefinition<_troupe_v1_LearnerBehind, _troupe_v1_LearnerBehind__Output>
      LearnerDirective: MessageTypeDefinition<_troupe_v1_LearnerDirective, _troupe_v1_LearnerDirective__Output>
      LearnerFailure: MessageTypeDefinition<_troupe_v1_LearnerFailure, _troupe_v1_LearnerFailure__Output>
      LearnerMessage: MessageTypeDefinition<_troupe_v1_LearnerMessage, _troupe_v1_LearnerMessage__Output>
      /**
       * The learner side. `Perform` carries commands and votes; `AllReduce` carries gradient bytes.
       * 
       * One optimizer step: the coordinator sends TrainStep to every member of a generation; each computes the gradients
       * of its micro-shards, streams them through AllReduce, gets the sums back, and votes; when every vote is finite and
       * all hashes agree the coordinator makes the step durable and sends CommitStep, and only then do learners apply it.
       * 
       * With `cluster.sync: parameters` a step is a round: one TrainStep per minibatch of the round, each answered by an
       * optimizer step of the learner's own; RoundTrained when it has done them all, or as many as it could before
       * StopTraining; AverageParameters tells each its part; then AllReduce, vote and commit as above.
       */
      LearnerService: SubtypeConstructor<typeof grpc.Client, _troupe_v1_LearnerServiceClient> & { service: _troupe_v1_LearnerServiceDefinition }
      ModelRef: MessageTypeDefinition<_troupe_v1_ModelRef, _troupe_v1_ModelRef__Output>
      PreferenceRows: MessageTypeDefinition<_troupe_v1_PreferenceRows, _troupe_v1_PreferenceRows__Output>
      PublishDone: MessageTypeDefinition<_troupe_v1_PublishDone, _troupe_v1_PublishDone__Output>
      PublishState: MessageTypeDefinition<_troupe_v1_PublishState, _troupe_v1_PublishState__Output>
      Reducer: MessageTypeDefinition<_troupe_v1_Reducer, _troupe_v1_Reducer__Output>
      Role: EnumTypeDefinition
      RoundPart: MessageTypeDefinition<_troupe_v1_RoundPart, _troupe_v1_RoundPart__Output>
      RoundTrained: MessageTypeDefinition<_troupe_v1_RoundTrained, _troupe_v1_RoundTrained__Output>
      RunShape: MessageTypeDefinition<_troupe_v1_RunShape, _troupe_v1_RunShape__Output>
      Sender: MessageTypeDefinition<_troupe_v1_Sender, _troupe_v1_Sender__Output>
      SetupDone: MessageTypeDefinition<_troupe_v1_SetupDone, _troupe_v1_SetupDone__Output>
      SetupStage: MessageTypeDefinition<_troupe_v1_SetupStage, _troupe_v1_SetupStage__Output>
      Shard: MessageTypeDefinition<_troupe_v1_Shard, _troupe_v1_Shard__Output>
      ShardStats: MessageTypeDefinition<_troupe_v1_ShardStats, _troupe_v1_ShardStats__Output>
      StepApplied: MessageTypeDefinition<_troupe_v1_StepApplied, _troupe_v1_StepApplied__Output>
      StepComputed: MessageTypeDefinition<_troupe_v1_StepComputed, _troupe_v1_StepComputed__Output>
      StepRows: MessageTypeDefinition<_troupe_v1_StepRows, _troupe_v1_StepRows__Output>
      StepVote: MessageTypeDefinition<_troupe_v1_StepVote, _troupe_v1_StepVote__Output>
      StopTraining: MessageTypeDefinition<_troupe_v1_StopTraining, _troupe_v1_StopTraining__Output>
      TokenizerInfo: MessageTypeDefinition<_troupe_v1_TokenizerInfo, _troupe_v1_TokenizerInfo__Output>
      TrainStep: MessageTypeDefinition<_troupe_v1_TrainStep, _troupe_v1_TrainStep__Output>
      TreeNode: MessageTypeDefinition<_troupe_v1_TreeNode, _troupe_v1_TreeNode__Output>
    }
  }
}

