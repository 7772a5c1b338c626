import type * as grpc from '@grpc/grpc-js';
import type { EnumTypeDefinition, MessageTypeDefinition } from '@grpc/proto-loader';

import type { ArtifactRef as _troupe_v1_ArtifactRef, ArtifactRef__Output as _troupe_v1_ArtifactRef__Output } from './troupe/v1/ArtifactRef.js';
import type { Draining as _troupe_v1_Draining, Draining__Output as _troupe_v1_Draining__Output } from './troupe/v1/Draining.js';
import type { ModelRef as _troupe_v1_ModelRef, ModelRef__Output as _troupe_v1_ModelRef__Output } from './troupe/v1/ModelRef.js';
import type { Sender as _troupe_v1_Sender, Sender__Output as _troupe_v1_Sender__Output } from './troupe/v1/Sender.js';
import type { TokenizerInfo as _troupe_v1_TokenizerInfo, TokenizerInfo__Output as _troupe_v1_TokenizerInfo__Output } from './troupe/v1/TokenizerInfo.js';

type SubtypeConstructor<Constructor extends new (...args: any) => any, Subtype> = {
  new(...args: ConstructorParameters<Constructor>): Subtype;
};

export interface ProtoGrpcType {
  troupe: {
    v1: {
      ArtifactRef: MessageTypeDefinition<_troupe_v1_ArtifactRef, _troupe_v1_ArtifactRef__Output>
      Draining: MessageTypeDefinition<_troupe_v1_Draining, _troupe_v1_Draining__Output>
      ModelRef: MessageTypeDefinition<_troupe_v1_ModelRef, _troupe_v1_ModelRef__Output>
      Role: EnumTypeDefinition
      Sender: MessageTypeDefinition<_troupe_v1_Sender, _troupe_v1_Sender__Output>
      TokenizerInfo: MessageTypeDefinition<_troupe_v1_TokenizerInfo, _troupe_v1_TokenizerInfo__Output>
    }
  }
}

