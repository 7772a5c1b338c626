// Original file: proto/troupe/v1/learner.proto

import type { Sender as _troupe_v1_Sender, Sender__Output as _troupe_v1_Sender__Output } from '../../troupe/v1/Sender.js';
import type { Hello as _troupe_v1_Hello, Hello__Output as _troupe_v1_Hello__Output } from '../../troupe/v1/Hello.js';
import type { SetupDone as _troupe_v1_SetupDone, SetupDone__Output as _troupe_v1_SetupDone__Output } from '../../troupe/v1/SetupDone.js';
import type { StepVote as _troupe_v1_StepVote, StepVote__Output as _troupe_v1_StepVote__Output } from '../../troupe/v1/StepVote.js';
import type { StepApplied as _troupe_v1_StepApplied, StepApplied__Output as _troupe_v1_StepApplied__Output } from '../../troupe/v1/StepApplied.js';
import type { EvaluateDone as _troupe_v1_EvaluateDone, EvaluateDone__Output as _troupe_v1_EvaluateDone__Output } from '../../troupe/v1/EvaluateDone.js';
import type { PublishDone as _troupe_v1_PublishDone, PublishDone__Output as _troupe_v1_PublishDone__Output } from '../../troupe/v1/PublishDone.js';
import type { LearnerFailure as _troupe_v1_LearnerFailure, LearnerFailure__Output as _troupe_v1_LearnerFailure__Output } from '../../troupe/v1/LearnerFailure.js';
import type { LearnerBehind as _troupe_v1_LearnerBehind, LearnerBehind__Output as _troupe_v1_LearnerBehind__Output } from '../../troupe/v1/LearnerBehind.js';
import type { Draining as _troupe_v1_Draining, Draining__Output as _troupe_v1_Draining__Output } from '../../troupe/v1/Draining.js';
import type { RoundTrained as _troupe_v1_RoundTrained, RoundTrained__Output as _troupe_v1_RoundTrained__Output } from '../../troupe/v1/RoundTrained.js';
import type { StepComputed as _troupe_v1_StepComputed, StepComputed__Output as _troupe_v1_StepComputed__Output } from '../../troupe/v1/StepComputed.js';
import type { Long } from '@grpc/proto-loader';

export interface LearnerMessage {
  'sender'?: (_troupe_v1_Sender | null);
  /**
   * The directive this answers; 0 for messages the worker starts (Hello, votes, applied steps).
   */
  'requestId'?: (number | string | Long);
  'hello'?: (_troupe_v1_Hello | null);
  'setupDone'?: (_troupe_v1_SetupDone | null);
  'vote'?: (_troupe_v1_StepVote | null);
  'applied'?: (_troupe_v1_StepApplied | null);
  'evaluated'?: (_troupe_v1_EvaluateDone | null);
  'published'?: (_troupe_v1_PublishDone | null);
  'failure'?: (_troupe_v1_LearnerFailure | null);
  'behind'?: (_troupe_v1_LearnerBehind | null);
  /**
   * Wants to leave between steps; the coordinator ends the stream when it may.
   */
  'draining'?: (_troupe_v1_Draining | null);
  'trained'?: (_troupe_v1_RoundTrained | null);
  'computed'?: (_troupe_v1_StepComputed | null);
  'message'?: "hello"|"setupDone"|"vote"|"applied"|"evaluated"|"published"|"failure"|"behind"|"draining"|"trained"|"computed";
}

export interface LearnerMessage__Output {
  'sender': (_troupe_v1_Sender__Output | null);
  /**
   * The directive this answers; 0 for messages the worker starts (Hello, votes, applied steps).
   */
  'requestId': (number);
  'hello'?: (_troupe_v1_Hello__Output | null);
  'setupDone'?: (_troupe_v1_SetupDone__Output | null);
  'vote'?: (_troupe_v1_StepVote__Output | null);
  'applied'?: (_troupe_v1_StepApplied__Output | null);
  'evaluated'?: (_troupe_v1_EvaluateDone__Output | null);
  'published'?: (_troupe_v1_PublishDone__Output | null);
  'failure'?: (_troupe_v1_LearnerFailure__Output | null);
  'behind'?: (_troupe_v1_LearnerBehind__Output | null);
  /**
   * Wants to leave between steps; the coordinator ends the stream when it may.
   */
  'draining'?: (_troupe_v1_Draining__Output | null);
  'trained'?: (_troupe_v1_RoundTrained__Output | null);
  'computed'?: (_troupe_v1_StepComputed__Output | null);
  'message'?: "hello"|"setupDone"|"vote"|"applied"|"evaluated"|"published"|"failure"|"behind"|"draining"|"trained"|"computed";
}
