// Original file: proto/troupe/v1/learner.proto


/**
 * First message of every stream: binds the stream to its sender.
 */
export interface Hello {
}

/**
 * First message of every stream: binds the stream to its sender.
 */
export interface Hello__Output {
}
