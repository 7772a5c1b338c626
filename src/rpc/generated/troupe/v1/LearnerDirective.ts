// Original file: proto/troupe/v1/learner.proto

import type { SetupStage as _troupe_v1_SetupStage, SetupStage__Output as _troupe_v1_SetupStage__Output } from '../../troupe/v1/SetupStage.js';
import type { TrainStep as _troupe_v1_TrainStep, TrainStep__Output as _troupe_v1_TrainStep__Output } from '../../troupe/v1/TrainStep.js';
import type { CommitStep as _troupe_v1_CommitStep, CommitStep__Output as _troupe_v1_CommitStep__Output } from '../../troupe/v1/CommitStep.js';
import type { AbortStep as _troupe_v1_AbortStep, AbortStep__Output as _troupe_v1_AbortStep__Output } from '../../troupe/v1/AbortStep.js';
import type { Evaluate as _troupe_v1_Evaluate, Evaluate__Output as _troupe_v1_Evaluate__Output } from '../../troupe/v1/Evaluate.js';
import type { PublishState as _troupe_v1_PublishState, PublishState__Output as _troupe_v1_PublishState__Output } from '../../troupe/v1/PublishState.js';
import type { StopTraining as _troupe_v1_StopTraining, StopTraining__Output as _troupe_v1_StopTraining__Output } from '../../troupe/v1/StopTraining.js';
import type { AverageParameters as _troupe_v1_AverageParameters, AverageParameters__Output as _troupe_v1_AverageParameters__Output } from '../../troupe/v1/AverageParameters.js';
import type { ApplyVoted as _troupe_v1_ApplyVoted, ApplyVoted__Output as _troupe_v1_ApplyVoted__Output } from '../../troupe/v1/ApplyVoted.js';
import type { StepRows as _troupe_v1_StepRows, StepRows__Output as _troupe_v1_StepRows__Output } from '../../troupe/v1/StepRows.js';
import type { Long } from '@grpc/proto-loader';

export interface LearnerDirective {
  /**
   * Echoed by the reply to this directive.
   */
  'requestId'?: (number | string | Long);
  'setup'?: (_troupe_v1_SetupStage | null);
  'train'?: (_troupe_v1_TrainStep | null);
  'commit'?: (_troupe_v1_CommitStep | null);
  'abort'?: (_troupe_v1_AbortStep | null);
  'evaluate'?: (_troupe_v1_Evaluate | null);
  /**
   * Write the named models (and, for a checkpoint, the whole training state) as artifacts.
   */
  'publish'?: (_troupe_v1_PublishState | null);
  'stop'?: (_troupe_v1_StopTraining | null);
  'average'?: (_troupe_v1_AverageParameters | null);
  'applyVoted'?: (_troupe_v1_ApplyVoted | null);
  'rows'?: (_troupe_v1_StepRows | null);
  'directive'?: "setup"|"train"|"commit"|"abort"|"evaluate"|"publish"|"stop"|"average"|"applyVoted"|"rows";
}

export interface LearnerDirective__Output {
  /**
   * Echoed by the reply to this directive.
   */
  'requestId': (number);
  'setup'?: (_troupe_v1_SetupStage__Output | null);
  'train'?: (_troupe_v1_TrainStep__Output | null);
  'commit'?: (_troupe_v1_CommitStep__Output | null);
  'abort'?: (_troupe_v1_AbortStep__Output | null);
  'evaluate'?: (_troupe_v1_Evaluate__Output | null);
  /**
   * Write the named models (and, for a checkpoint, the whole training state) as artifacts.
   */
  'publish'?: (_troupe_v1_PublishState__Output | null);
  'stop'?: (_troupe_v1_StopTraining__Output | null);
  'average'?: (_troupe_v1_AverageParameters__Output | null);
  'applyVoted'?: (_troupe_v1_ApplyVoted__Output | null);
  'rows'?: (_troupe_v1_StepRows__Output | null);
  'directive'?: "setup"|"train"|"commit"|"abort"|"evaluate"|"publish"|"stop"|"average"|"applyVoted"|"rows";
}
