import type { Ledger } from "../observability/run-status.js";
import type { LedgerCounts } from "./core/index.js";

/** The ledger as people see it: admitted = trained + dropped + buffered. */
export function ledgerOf(counts: LedgerCounts): Ledger {
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
