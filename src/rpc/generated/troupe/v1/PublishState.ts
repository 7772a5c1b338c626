// Original file: proto/troupe/v1/learner.proto


export interface _troupe_v1_PublishState_Item {
  /**
   * "model:<role>" (parameters only), "ema:<role>", "adapter:<role>" (PEFT's
   * format, its config in the file's metadata), or "state" (everything needed to resume).
   */
  'what'?: (string);
  /**
   * Name the artifact gets.
   */
  'artifactName'?: (string);
}

export interface _troupe_v1_PublishState_Item__Output {
  /**
   * "model:<role>" (parameters only), "ema:<role>", "adapter:<role>" (PEFT's
   * format, its config in the file's metadata), or "state" (everything needed to resume).
   */
  'what': (string);
  /**
   * Name the artifact gets.
   */
  'artifactName': (string);
}

export interface PublishState {
  'items'?: (_troupe_v1_PublishState_Item)[];
}

export interface PublishState__Output {
  'items': (_troupe_v1_PublishState_Item__Output)[];
}
