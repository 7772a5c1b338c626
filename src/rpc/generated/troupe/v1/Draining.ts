// Original file: proto/troupe/v1/common.proto


/**
 * The sender takes no new work and waits to be released.
 */
export interface Draining {
}

/**
 * The sender takes no new work and waits to be released.
 */
export interface Draining__Output {
}
