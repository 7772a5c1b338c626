import { expect, test } from "vitest";
import { EventBus, type ProgressEvent, type PublishedEvent } from "../../../src/observability/progress.js";

const message = (text: string): ProgressEvent => ({ type: "message", level: "info", text });
const lost = (workerId: string): ProgressEvent => ({
  type: "worker-lost",
  workerId,
  role: "rollout",
  reason: "lease",
});

test("events arrive in order with consecutive sequences and the bus's time", () => {
  let now = 100;
  const bus = new EventBus({ now: () => now++ });
  const seen: PublishedEvent[] = [];
  bus.subscribe((event) => seen.push(event));
  bus.publish(message("a"));
  bus.publish(lost("w"));
  expect(seen.map((event) => [event.sequence, event.timeMs, event.type])).toEqual([
    [1, 100, "message"],
    [2, 101, "worker-lost"],
  ]);
});

test("a late subscriber gets the remembered events after the one it knows, then live ones, each once", () => {
  const bus = new EventBus();
  for (const text of ["a", "b", "c"]) bus.publish(message(text));
  const seen: number[] = [];
  bus.subscribe((event) => seen.push(event.sequence), { after: 1 });
  bus.publish(message("d"));
  expect(seen).toEqual([2, 3, 4]);
});

test("without `after` only new events are delivered", () => {
  const bus = new EventBus();
  bus.publish(message("old"));
  const seen: number[] = [];
  const unsubscribe = bus.subscribe((event) => seen.push(event.sequence));
  bus.publish(message("new"));
  unsubscribe();
  unsubscribe();
  bus.publish(message("after"));
  expect(seen).toEqual([2]);
});

test("history is bounded, and a flood of frequent events does not push out the rare ones", () => {
  const bus = new EventBus({ historyEvents: 3 });
  bus.publish(lost("first"));
  for (let i = 0; i < 10; i++) bus.publish(message(String(i)));
  expect(bus.history().map((event) => event.sequence)).toEqual([1, 9, 10, 11]);
});

test("a listener that throws is reported and disturbs nobody", () => {
  const errors: unknown[] = [];
  const bus = new EventBus({ onListenerError: (error) => errors.push(error) });
  const seen: string[] = [];
  bus.subscribe(() => {
    throw new Error("broken");
  });
  bus.subscribe((event) => seen.push(event.type));
  expect(() => bus.publish(message("a"))).not.toThrow();
  expect(seen).toEqual(["message"]);
  expect(errors).toHaveLength(1);
});

test("a listener may unsubscribe another while an event is delivered", () => {
  const bus = new EventBus();
  const seen: string[] = [];
  let stop = () => {};
  bus.subscribe(() => stop());
  stop = bus.subscribe(() => seen.push("second"));
  bus.publish(message("a"));
  bus.publish(message("b"));
  expect(seen).toEqual(["second"]);
});
