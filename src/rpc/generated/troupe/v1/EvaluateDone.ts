// Original file: proto/troupe/v1/learner.proto


export interface EvaluateDone {
  /**
   * float64 sums per row, in row order, by quantity ("nll", "tokens", "chosen_score", "rejected_score").
   */
  'rows'?: ({[key: string]: Buffer | Uint8Array | string});
}

export interface EvaluateDone__Output {
  /**
   * float64 sums per row, in row order, by quantity ("nll", "tokens", "chosen_score", "rejected_score").
   */
  'rows': ({[key: string]: Buffer});
}
