// Original file: proto/troupe/v1/artifact.proto

import type * as grpc from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import type { ArtifactChunk as _troupe_v1_ArtifactChunk, ArtifactChunk__Output as _troupe_v1_ArtifactChunk__Output } from '../../troupe/v1/ArtifactChunk.js';
import type { FetchRequest as _troupe_v1_FetchRequest, FetchRequest__Output as _troupe_v1_FetchRequest__Output } from '../../troupe/v1/FetchRequest.js';
import type { PublishReply as _troupe_v1_PublishReply, PublishReply__Output as _troupe_v1_PublishReply__Output } from '../../troupe/v1/PublishReply.js';

/**
 * Files between coordinator and workers: weights by version, training states, models.
 */
export interface ArtifactServiceClient extends grpc.Client {
  Fetch(argument: _troupe_v1_FetchRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_troupe_v1_ArtifactChunk__Output>;
  Fetch(argument: _troupe_v1_FetchRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_troupe_v1_ArtifactChunk__Output>;
  fetch(argument: _troupe_v1_FetchRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_troupe_v1_ArtifactChunk__Output>;
  fetch(argument: _troupe_v1_FetchRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_troupe_v1_ArtifactChunk__Output>;
  
  /**
   * First chunk carries the ref (with size and sha256), the following ones the bytes. Visible only once complete and
   * verified. A file left in PublishState.handover_dir is announced by its name there (ref.local_path, no sha256) and
   * not sent; a reply without a ref says that it was not found.
   */
  Publish(metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_PublishReply__Output>): grpc.ClientWritableStream<_troupe_v1_ArtifactChunk>;
  Publish(metadata: grpc.Metadata, callback: grpc.requestCallback<_troupe_v1_PublishReply__Output>): grpc.ClientWritableStream<_troupe_v1_ArtifactChunk>;
  Publish(options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_PublishReply__Output>): grpc.ClientWritableStream<_troupe_v1_ArtifactChunk>;
  Publish(callback: grpc.requestCallback<_troupe_v1_PublishReply__Output>): grpc.ClientWritableStream<_troupe_v1_ArtifactChunk>;
  /**
   * First chunk carries the ref (with size and sha256), the following ones the bytes. Visible only once complete and
   * verified. A file left in PublishState.handover_dir is announced by its name there (ref.local_path, no sha256) and
   * not sent; a reply without a ref says that it was not found.
   */
  publish(metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_PublishReply__Output>): grpc.ClientWritableStream<_troupe_v1_ArtifactChunk>;
  publish(metadata: grpc.Metadata, callback: grpc.requestCallback<_troupe_v1_PublishReply__Output>): grpc.ClientWritableStream<_troupe_v1_ArtifactChunk>;
  publish(options: grpc.CallOptions, callback: grpc.requestCallback<_troupe_v1_PublishReply__Output>): grpc.ClientWritableStream<_troupe_v1_ArtifactChunk>;
  publish(callback: grpc.requestCallback<_troupe_v1_PublishReply__Output>): grpc.ClientWritableStream<_troupe_v1_ArtifactChunk>;
  
}

/**
 * Files between coordinator and workers: weights by version, training states, models.
 */
export interface ArtifactServiceHandlers extends grpc.UntypedServiceImplementation {
  Fetch: grpc.handleServerStreamingCall<_troupe_v1_FetchRequest__Output, _troupe_v1_ArtifactChunk>;
  
  /**
   * First chunk carries the ref (with size and sha256), the following ones the bytes. Visible only once complete and
   * verified. A file left in PublishState.handover_dir is announced by its name there (ref.local_path, no sha256) and
   * not sent; a reply without a ref says that it was not found.
   */
  Publish: grpc.handleClientStreamingCall<_troupe_v1_ArtifactChunk__Output, _troupe_v1_PublishReply>;
  
}

export interface ArtifactServiceDefinition extends grpc.ServiceDefinition {
  Fetch: MethodDefinition<_troupe_v1_FetchRequest, _troupe_v1_ArtifactChunk, _troupe_v1_FetchRequest__Output, _troupe_v1_ArtifactChunk__Output>
  Publish: MethodDefinition<_troupe_v1_ArtifactChunk, _troupe_v1_PublishReply, _troupe_v1_ArtifactChunk__Output, _troupe_v1_PublishReply__Output>
}
