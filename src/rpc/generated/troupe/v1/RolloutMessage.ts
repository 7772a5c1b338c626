// Original file: proto/troupe/v1/rollout.proto

import type { Sender as _troupe_v1_Sender, Sender__Output as _troupe_v1_Sender__Output } from '../../troupe/v1/Sender.js';
import type { Ready as _troupe_v1_Ready, Ready__Output as _troupe_v1_Ready__Output } from '../../troupe/v1/Ready.js';
import type { TaskDone as _troupe_v1_TaskDone, TaskDone__Output as _troupe_v1_TaskDone__Output } from '../../troupe/v1/TaskDone.js';
import type { TaskFailed as _troupe_v1_TaskFailed, TaskFailed__Output as _troupe_v1_TaskFailed__Output } from '../../troupe/v1/TaskFailed.js';
import type { Draining as _troupe_v1_Draining, Draining__Output as _troupe_v1_Draining__Output } from '../../troupe/v1/Draining.js';
import type { ExperienceBatch as _troupe_v1_ExperienceBatch, ExperienceBatch__Output as _troupe_v1_ExperienceBatch__Output } from '../../troupe/v1/ExperienceBatch.js';

export interface RolloutMessage {
  'sender'?: (_troupe_v1_Sender | null);
  /**
   * How many tasks the worker will hold at a time.
   */
  'ready'?: (_troupe_v1_Ready | null);
  /**
   * All experiences of the task were sent.
   */
  'done'?: (_troupe_v1_TaskDone | null);
  'failed'?: (_troupe_v1_TaskFailed | null);
  /**
   * Take nothing new; the coordinator ends the stream once nothing is held here.
   */
  'draining'?: (_troupe_v1_Draining | null);
  'experiences'?: (_troupe_v1_ExperienceBatch | null);
  'message'?: "ready"|"experiences"|"done"|"failed"|"draining";
}

export interface RolloutMessage__Output {
  'sender': (_troupe_v1_Sender__Output | null);
  /**
   * How many tasks the worker will hold at a time.
   */
  'ready'?: (_troupe_v1_Ready__Output | null);
  /**
   * All experiences of the task were sent.
   */
  'done'?: (_troupe_v1_TaskDone__Output | null);
  'failed'?: (_troupe_v1_TaskFailed__Output | null);
  /**
   * Take nothing new; the coordinator ends the stream once nothing is held here.
   */
  'draining'?: (_troupe_v1_Draining__Output | null);
  'experiences'?: (_troupe_v1_ExperienceBatch__Output | null);
  'message'?: "ready"|"experiences"|"done"|"failed"|"draining";
}
