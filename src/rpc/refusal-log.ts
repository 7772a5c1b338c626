/** Log lines about what was refused: the first of each kind at once, then a count, so that a stranger cannot fill the disk. */
/** A call or a connection that was not let in. */
interface Refused {
  readonly reason: string;
  /** Host, with or without a port. */
  readonly peer: string;
}

/** At most one line per peer host and reason in this time. */
const QUIET_MS = 10_000;
/** Hosts remembered at a time; beyond it the oldest is forgotten, and may log again. */
const MAX_KINDS = 1024;

interface Kind {
  loggedAtMs: number;
  suppressed: number;
}

/** @param log gets the refusal and how many like it were not logged since the last line */
export function makeRefusalLog<R extends Refused>(
  log: (refusal: R, suppressed: number) => void,
  now: () => number = () => performance.now(),
): (refusal: R) => void {
  const kinds = new Map<string, Kind>();
  return (refusal) => {
    const key = `${refusal.reason} ${refusal.peer.replace(/:\d+$/, "")}`;
    const kind = kinds.get(key);
    if (kind !== undefined && now() - kind.loggedAtMs < QUIET_MS) {
      kind.suppressed += 1;
      return;
    }
    kinds.delete(key); // to the end: the map's order is by last line
    kinds.set(key, { loggedAtMs: now(), suppressed: 0 });
    if (kinds.size > MAX_KINDS) kinds.delete(kinds.keys().next().value as string);
    log(refusal, kind?.suppressed ?? 0);
  };
}
