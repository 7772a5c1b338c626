// Original file: proto/troupe/v1/common.proto


export interface TokenizerInfo {
  'vocabularySize'?: (number);
  /**
   * An answer ends with one of these.
   */
  'eosIds'?: (number)[];
  'padId'?: (number);
}

export interface TokenizerInfo__Output {
  'vocabularySize': (number);
  /**
   * An answer ends with one of these.
   */
  'eosIds': (number)[];
  'padId': (number);
}
