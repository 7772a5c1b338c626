/**
 * What a run leaves behind for the checker: who said and did what, in virtual time. Written by the simulated
 * processes and their shell, never by the code under test.
 */
import type { DurableRecord, ExperienceOutcome } from "../coordinator/core/index.js";

export type HistoryEntry =
  /** The coordinator told a process its incarnation, or that an incarnation is over (any reason). */
  | {
      readonly type: "accepted" | "removed";
      readonly owner: number;
      readonly workerId: string;
      readonly incarnation: number;
    }
  /** A process asked to join was told its incarnation. */
  | {
      readonly type: "welcomed";
      readonly workerId: string;
      readonly incarnation: number;
      readonly epoch: number;
      readonly durable: number;
    }
  /** A coordinator, the owner-th that opened the journal, wrote to it. */
  | { readonly type: "appended"; readonly owner: number; readonly epoch: number }
  /** It wanted to, and could not. */
  | { readonly type: "refused"; readonly owner: number; readonly why: "replaced" | "failed" }
  /** A message of a process that is over ("I6"), or of something that is over ("I12"), changed something. */
  | {
      readonly type: "strayed";
      readonly rule: "I6" | "I12";
      readonly event: string;
      readonly workerId: string;
      readonly change: string;
    }
  /** Learners are told to go on from a checkpoint. */
  | {
      readonly type: "restored";
      readonly checkpointId: string;
      readonly isDamaged: boolean;
      readonly durable: number;
    }
  /** The learners' state after a step became a policy (its version) or a checkpoint (its id). */
  | {
      readonly type: "kept";
      readonly as: number | string;
      readonly step: number;
      readonly parameters: number;
    }
  /** A lease ran out although the last heartbeat arrived `silentMs` ago in true time. */
  | { readonly type: "expired"; readonly workerId: string; readonly silentMs: number }
  /** The core judged an experience; `records` journalled with the verdict. */
  | {
      readonly type: "judged";
      readonly owner: number;
      readonly workerId: string;
      readonly incarnation: number;
      readonly experienceId: string;
      readonly outcome: ExperienceOutcome;
      readonly records: number;
    }
  /** The verdict left the coordinator. */
  | {
      readonly type: "acked";
      readonly experienceId: string;
      readonly outcome: ExperienceOutcome;
      readonly durable: number;
    }
  /** The core took a worker's answer to an evaluation task. */
  | {
      readonly type: "evaluated";
      readonly owner: number;
      readonly taskId: string;
      readonly attempt: number;
    }
  | {
      readonly type: "voted";
      readonly workerId: string;
      readonly incarnation: number;
      readonly generation: number;
      readonly step: number;
      readonly isFinite: boolean;
      readonly hash: string;
    }
  | {
      readonly type: "started";
      readonly generation: number;
      readonly step: number;
      readonly incarnations: readonly number[];
      readonly isReplay: boolean;
      /** The whole collections its experiences belong to, ids joined. */
      readonly collections: readonly string[];
    }
  | {
      readonly type: "committed";
      readonly generation: number;
      readonly step: number;
      readonly hash: string;
      readonly durable: number;
    }
  /** A learner of a round trained its rows of one minibatch. */
  | {
      readonly type: "part";
      readonly workerId: string;
      readonly incarnation: number;
      readonly generation: number;
      readonly step: number;
      readonly optimizerStep: number;
      /** Place of the minibatch in its round. */
      readonly index: number;
      readonly firstShard: number;
      readonly shardCount: number;
      readonly experienceIds: readonly string[];
      /** Parameters that the round started from. */
      readonly start: number;
    }
  /** The coordinator told the members of a round their weights. */
  | {
      readonly type: "averaging";
      readonly generation: number;
      readonly step: number;
      readonly members: readonly {
        readonly workerId: string;
        readonly incarnation: number;
        readonly weight: number;
      }[];
    }
  /** A task was given to a second worker. */
  | { readonly type: "hedged"; readonly taskId: string; readonly workerId: string }
  /** Somebody needed a payload that is gone. */
  | { readonly type: "unreadable"; readonly experienceId: string }
  /** A learner changed its parameters. */
  | {
      readonly type: "applied";
      readonly workerId: string;
      readonly generation: number;
      readonly step: number;
      readonly hash: string;
    }
  /** The ledger as the product reports it. */
  | {
      readonly type: "ledger";
      /** The coordinator that reports it. */
      readonly owner: number;
      readonly admitted: number;
      readonly trained: number;
      readonly dropped: number;
      readonly buffered: number;
      readonly bufferedBytes: number;
    }
  | { readonly type: "stopped"; readonly code: string; readonly diagnosis: string };

export interface History {
  readonly entries: HistoryEntry[];
  /** Every record that became durable, in order, over all epochs; `acked.durable` counts into it. */
  readonly records: DurableRecord[];
  /** Content of every payload that became durable with its record. */
  readonly contents: Map<string, number>;
  /** Whether the train loop went through, and when. */
  isFinished: boolean;
  endedAtMs: number;
  /** Between two signs that something happens, ms. */
  longestSilenceMs: number;
  /** The last published policy. */
  finalParameters: number | null;
}

export const makeHistory = (): History => ({
  entries: [],
  records: [],
  contents: new Map(),
  isFinished: false,
  endedAtMs: 0,
  longestSilenceMs: 0,
  finalParameters: null,
});
