// Original file: proto/troupe/v1/control.proto


export interface ProgressEvent {
  /**
   * JSON of the ProgressEvent union in src/observability/progress.ts: an open set of display facts, not protocol.
   */
  'json'?: (string);
}

export interface ProgressEvent__Output {
  /**
   * JSON of the ProgressEvent union in src/observability/progress.ts: an open set of display facts, not protocol.
   */
  'json': (string);
}
