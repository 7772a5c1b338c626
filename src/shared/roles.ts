/** What a process is to a run. (A model's role, actor or critic, is another thing; what a caller may do, too.) */
export type WorkerRole = "rollout" | "learner";
export type ProcessRole = "coordinator" | WorkerRole;
