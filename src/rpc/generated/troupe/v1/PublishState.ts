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
  /**
   * Answer with the fingerprint of the whole state, which takes a pass over all of it.
   */
  'fingerprint'?: (boolean);
  /**
   * Folder of the coordinator where files may be left instead of being sent, by a learner that finds it.
   */
  'handoverDir'?: (string);
}

export interface PublishState__Output {
  'items': (_troupe_v1_PublishState_Item__Output)[];
  /**
   * Answer with the fingerprint of the whole state, which takes a pass over all of it.
   */
  'fingerprint': (boolean);
  /**
   * Folder of the coordinator where files may be left instead of being sent, by a learner that finds it.
   */
  'handoverDir': (string);
}
