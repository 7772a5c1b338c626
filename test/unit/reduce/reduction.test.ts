import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
  Reduction,
  WINDOW,
  type Contribution,
  type MemberPort,
  type ReductionFailure,
} from "../../../src/reduce/reduction.js";

/** A member that keeps what it gets; deliveries are confirmed when the test says so. */
class Member implements MemberPort {
  readonly totals: number[] = [];
  readonly confirm: (() => void)[] = [];
  isPaused = false;
  outcome: "none" | "finished" | "failed" = "none";

  constructor(private readonly confirmsAtOnce = true) {}

  send(bucket: number, total: Uint8Array, onSent: () => void): void {
    this.totals.push(bucket, new Float32Array(Uint8Array.from(total).buffer)[0]);
    if (this.confirmsAtOnce) onSent();
    else this.confirm.push(onSent);
  }
  pause = () => void (this.isPaused = true);
  resume = () => void (this.isPaused = false);
  finish = () => void (this.outcome = "finished");
  fail = () => void (this.outcome = "failed");
}

const BUCKETS = 3 * WINDOW;
let failures: ReductionFailure[];
const failed = (failure: ReductionFailure) => void failures.push(failure);
const open = (members = ["a", "b"]) =>
  new Reduction({
    ...{ generation: 1, step: 1, shardCount: 2, wire: "f32", bucketTimeoutMs: 1000, onFailed: failed },
    members: members.map((workerId, i) => ({ workerId, firstShard: i, shardCount: i < 2 ? 1 : 0 })),
    onBytes: () => undefined,
  });
const join = (
  reduction: Reduction,
  workerId: string,
  shard: number,
  port: Member,
  laterBuckets = 0,
): Contribution =>
  reduction.join(
    workerId,
    {
      ...{ generation: 1, step: 1, elementCount: BUCKETS, bucketElements: 1, laterBuckets },
      nodes: shard < 2 ? [{ level: 0, index: shard }] : [],
    },
    port,
  );
const value = (number: number) => new Uint8Array(Float32Array.of(number).buffer);

beforeEach(() => {
  failures = [];
  vi.useFakeTimers();
});
afterEach(() => vi.useRealTimers());

describe("a reduction", () => {
  it("pauses a member that runs ahead, and lets it go on as the others follow", () => {
    const [fast, slow] = [new Member(), new Member()];
    const reduction = open();
    const ahead = join(reduction, "a", 0, fast);
    const behind = join(reduction, "b", 1, slow);
    let sent = 0;
    while (!fast.isPaused) ahead.add(0, sent++, value(1));
    expect(sent).toBe(WINDOW);
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      behind.add(0, bucket, value(2));
      expect(slow.isPaused).toBe(false);
      while (!fast.isPaused && sent < BUCKETS) ahead.add(0, sent++, value(1));
    }
    expect([fast.outcome, slow.outcome]).toEqual(["finished", "finished"]);
    expect(fast.totals).toEqual(Array.from({ length: BUCKETS }, (_, bucket) => [bucket, 3]).flat());
    expect(slow.totals).toEqual(fast.totals);
    expect(failures).toEqual([]);
  });

  it("holds everybody up for a member that takes no totals, and never forgets one that it lacks", () => {
    const [quick, idle, late] = [new Member(), new Member(false), new Member()];
    const reduction = open(["a", "b", "c"]);
    const [a, b] = [join(reduction, "a", 0, quick), join(reduction, "b", 1, idle)];
    let sent = 0;
    while (!quick.isPaused) {
      a.add(0, sent, value(1));
      b.add(0, sent++, value(2));
    }
    expect(sent).toBe(WINDOW);
    join(reduction, "c", 2, late); // contributes nothing, but wants every total
    expect(late.totals.length).toBe(2 * WINDOW);
    expect(quick.isPaused).toBe(true);
    idle.confirm.shift()!();
    expect(quick.isPaused).toBe(false);
  });

  it("fails when nothing moves for the time a bucket may take, and blames who is furthest behind", () => {
    const [quick, slow] = [new Member(), new Member()];
    const reduction = open();
    const a = join(reduction, "a", 0, quick);
    vi.advanceTimersByTime(60_000);
    expect(failures).toEqual([]); // the other one may still compute: that is the step's deadline, not ours
    const b = join(reduction, "b", 1, slow);
    a.add(0, 0, value(1));
    a.add(0, 1, value(1));
    vi.advanceTimersByTime(900);
    b.add(0, 0, value(1));
    vi.advanceTimersByTime(900);
    expect(failures).toEqual([]); // a bucket was completed meanwhile
    vi.advanceTimersByTime(200);
    expect(failures.map(({ workerId }) => workerId)).toEqual(["b"]);
    expect([quick.outcome, slow.outcome]).toEqual(["failed", "failed"]);
    expect(() => a.add(0, 2, value(1))).toThrow(/given up/);
  });

  it("does not take for late who still computes, but whoever else owes something", () => {
    const [first, second] = [new Member(), new Member()];
    const reduction = open();
    const later = BUCKETS - 2;
    const a = join(reduction, "a", 0, first, later);
    const b = join(reduction, "b", 1, second, later);
    for (const bucket of [0, 1]) for (const member of [a, b]) member.add(0, bucket, value(1));
    vi.advanceTimersByTime(60_000);
    expect(failures).toEqual([]); // both compute
    for (let bucket = 2; !first.isPaused; bucket++) a.add(0, bucket, value(1));
    vi.advanceTimersByTime(60_000);
    expect(failures).toEqual([]); // one of them is through and far ahead
    b.add(0, 2, value(1));
    vi.advanceTimersByTime(60_000);
    expect(failures.map(({ workerId }) => workerId)).toEqual(["b"]);
  });

  it.each(["sends nothing of what it has", "takes no total"])(
    "blames a member that %s, while another computes",
    (what) => {
      const computes = new Member();
      const idle = new Member(what !== "takes no total");
      const reduction = open();
      const a = join(reduction, "a", 0, computes, BUCKETS - 1);
      const b = join(reduction, "b", 1, idle, BUCKETS - 1);
      a.add(0, 0, value(1));
      if (!what.startsWith("sends")) b.add(0, 0, value(1));
      vi.advanceTimersByTime(2_000);
      expect(failures.map(({ workerId }) => workerId)).toEqual(["b"]);
    },
  );

  it("refuses a member that computes more buckets than there are", () => {
    expect(() => join(open(), "a", 0, new Member(), BUCKETS + 1)).toThrow(/later_buckets/);
  });

  it("ends for all when one is lost, once", () => {
    const [first, second] = [new Member(), new Member()];
    const reduction = open();
    const [a, b] = [join(reduction, "a", 0, first), join(reduction, "b", 1, second)];
    a.lost(new Error("gone"));
    b.lost(new Error("gone as well"));
    reduction.close("closed");
    expect(failures).toEqual([{ generation: 1, step: 1, workerId: "a", reason: "gone" }]);
    expect(second.outcome).toBe("failed");
    expect(() => join(reduction, "b", 1, second)).toThrow(/not open/);
  });
});
