/**
 * I6: at most one coordinator writes, nobody joins before its epoch is durable, and only the last process of a name that was
 * accepted and not removed since changes anything. I12: nor does a message of something that is over.
 */
import type { Report } from "./checker.js";
import type { History } from "./history.js";

export function checkAuthority(history: History, report: Report): void {
  checkWriters(history, report);
  checkWelcomes(history, report);
  checkMembership(history, report);
  for (const entry of history.entries)
    if (entry.type === "strayed")
      report(entry.rule, `${entry.event} of ${entry.workerId}, which is over, changed ${entry.change}`);
}

function checkWriters(history: History, report: Report): void {
  let last = { owner: 0, epoch: 0 };
  for (const entry of history.entries) {
    if (entry.type !== "appended") continue;
    const { owner, epoch } = entry;
    if (owner < last.owner)
      report("I6", `epoch ${epoch} wrote to the journal after ${last.epoch} had taken over`);
    else if (owner > last.owner && epoch <= last.epoch)
      report("I6", `epoch ${epoch} follows epoch ${last.epoch}`);
    if (owner > last.owner) last = { owner, epoch };
  }
}

/** An epoch that is not durable may be opened again, and its incarnations be given out again. */
function checkWelcomes(history: History, report: Report): void {
  const openedAt = new Map<number, number>();
  history.records.forEach((record, index) => {
    if (record.type === "EpochStarted" && !openedAt.has(record.epoch)) openedAt.set(record.epoch, index);
  });
  const given = new Map<number, number>();
  for (const entry of history.entries) {
    if (entry.type === "welcomed" && (openedAt.get(entry.epoch) ?? Infinity) >= entry.durable)
      report("I6", `${entry.workerId} joined epoch ${entry.epoch} before it was open`);
    if (entry.type !== "accepted") continue;
    const { incarnation, owner } = entry;
    if ((given.get(incarnation) ?? owner) !== owner)
      report("I6", `incarnation ${incarnation} given by two coordinators`);
    given.set(incarnation, owner);
  }
}

/** What one coordinator knows of its workers. */
interface Members {
  readonly live: Map<string, number>;
  readonly removed: Set<number>;
  greatest: number;
}

function checkMembership(history: History, report: Report): void {
  const byOwner = new Map<number, Members>();
  for (const entry of history.entries) {
    if (entry.type !== "accepted" && entry.type !== "removed" && entry.type !== "judged") continue;
    const { owner, workerId, incarnation } = entry;
    const members = byOwner.get(owner) ?? { live: new Map(), removed: new Set(), greatest: -1 };
    byOwner.set(owner, members);
    const { live, removed } = members;
    if (entry.type === "accepted") {
      if (incarnation > members.greatest) members.greatest = incarnation;
      else if (live.get(workerId) !== incarnation) report("I6", `incarnation ${incarnation} given twice`);
      live.set(workerId, incarnation);
    } else if (entry.type === "removed") {
      removed.add(incarnation);
    } else if (entry.type === "judged" && entry.outcome !== "fenced") {
      if (live.get(workerId) === incarnation && !removed.has(incarnation)) continue;
      report(
        "I6",
        `${entry.experienceId} ${entry.outcome} from ${workerId}, incarnation ${incarnation}, which is over`,
      );
    }
  }
}
