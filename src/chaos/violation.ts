/** A promise of docs/architecture.md that a run broke. */
export interface Violation {
  readonly invariant:
    | "journal" // its records do not follow from each other
    | "ledger" // admitted = trained + dropped + buffered
    | "experience" // each admitted once, trained as often as planned, none lost
    | "step" // contiguous, each committed once, with the result it has without faults
    | "lost step" // what was committed stays committed
    | "redone" // at most the step in flight is done again
    | "version" // policy versions follow each other, with the weights they have without faults
    | "epoch" // every coordinator fences the one before
    | "summary" // the same results as without faults
    | "final state" // the same parameters and optimizer state as without faults
    | "stuck" // nothing happened for too long
    | "failed"; // the run did not end well
  readonly detail: string;
}
