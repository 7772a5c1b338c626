import type { LedgerCounts } from "./core/index.js";

export interface LedgerView {
  readonly admitted: number;
  readonly trained: number;
  readonly dropped: number;
  readonly buffered: number;
  readonly droppedByReason: Readonly<Record<string, number>>;
  /** Asked for and given up before admission; not part of the balance. */
  readonly refusedByReason: Readonly<Record<string, number>>;
  /** Asked for, neither admitted nor given up yet; not part of the balance. */
  readonly inFlight: number;
  /** The trained ones, by how many versions the policy was ahead of the one that sampled them. */
  readonly trainedByStaleness: Readonly<Record<string, number>>;
}

/** The ledger as people see it: admitted = trained + dropped + buffered. */
export function ledgerOf(counts: LedgerCounts): LedgerView {
  return {
    admitted: counts.admitted,
    trained: counts.trained,
    dropped: Object.values(counts.dropped).reduce((sum, count) => sum + count, 0),
    buffered: counts.buffered,
    droppedByReason: { ...counts.dropped },
    refusedByReason: { ...counts.abandoned },
    inFlight: counts.open,
    trainedByStaleness: { ...counts.trainedByStaleness },
  };
}
