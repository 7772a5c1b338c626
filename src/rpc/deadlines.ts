/** Every unary call has one of these deadlines; streams are watched by heartbeats and by the step and task timeouts. */
export const CONTROL_DEADLINE_MS = 10_000;
/** Transfers of model files: generous, since a stalled one is also ended by keepalive. */
export const BULK_DEADLINE_MS = 600_000;
/** How long a worker keeps trying to reach a coordinator that is away before it gives up (exit 69). */
export const RECONNECT_BUDGET_MS = 60_000;

export const deadlineIn = (ms: number): Date => new Date(Date.now() + ms);
