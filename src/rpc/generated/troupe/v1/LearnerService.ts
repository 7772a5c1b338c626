// Original file: proto/troupe/v1/learner.proto

import type * as grpc from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import type { GradientChunk as _troupe_v1_GradientChunk, GradientChunk__Output as _troupe_v1_GradientChunk__Output } from '../../troupe/v1/GradientChunk.js';
import type { LearnerDirective as _troupe_v1_LearnerDirective, LearnerDirective__Output as _troupe_v1_LearnerDirective__Output } from '../../troupe/v1/LearnerDirective.js';
import type { LearnerMessage as _troupe_v1_LearnerMessage, LearnerMessage__Output as _troupe_v1_LearnerMessage__Output } from '../../troupe/v1/LearnerMessage.js';

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
export interface LearnerServiceClient extends grpc.Client {
  /**
   * One call per learner and step. First message: header; then buckets in order; replies: summed buckets in order.
   */
  AllReduce(metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientDuplexStream<_troupe_v1_GradientChunk, _troupe_v1_GradientChunk__Output>;
  AllReduce(options?: grpc.CallOptions): grpc.ClientDuplexStream<_troupe_v1_GradientChunk, _troupe_v1_GradientChunk__Output>;
  /**
   * One call per learner and step. First message: header; then buckets in order; replies: summed buckets in order.
   */
  allReduce(metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientDuplexStream<_troupe_v1_GradientChunk, _troupe_v1_GradientChunk__Output>;
  allReduce(options?: grpc.CallOptions): grpc.ClientDuplexStream<_troupe_v1_GradientChunk, _troupe_v1_GradientChunk__Output>;
  
  Perform(metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientDuplexStream<_troupe_v1_LearnerMessage, _troupe_v1_LearnerDirective__Output>;
  Perform(options?: grpc.CallOptions): grpc.ClientDuplexStream<_troupe_v1_LearnerMessage, _troupe_v1_LearnerDirective__Output>;
  perform(metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientDuplexStream<_troupe_v1_LearnerMessage, _troupe_v1_LearnerDirective__Output>;
  perform(options?: grpc.CallOptions): grpc.ClientDuplexStream<_troupe_v1_LearnerMessage, _troupe_v1_LearnerDirective__Output>;
  
}

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
export interface LearnerServiceHandlers extends grpc.UntypedServiceImplementation {
  /**
   * One call per learner and step. First message: header; then buckets in order; replies: summed buckets in order.
   */
  AllReduce: grpc.handleBidiStreamingCall<_troupe_v1_GradientChunk__Output, _troupe_v1_GradientChunk>;
  
  Perform: grpc.handleBidiStreamingCall<_troupe_v1_LearnerMessage__Output, _troupe_v1_LearnerDirective>;
  
}

export interface LearnerServiceDefinition extends grpc.ServiceDefinition {
  AllReduce: MethodDefinition<_troupe_v1_GradientChunk, _troupe_v1_GradientChunk, _troupe_v1_GradientChunk__Output, _troupe_v1_GradientChunk__Output>
  Perform: MethodDefinition<_troupe_v1_LearnerMessage, _troupe_v1_LearnerDirective, _troupe_v1_LearnerMessage__Output, _troupe_v1_LearnerDirective__Output>
}
