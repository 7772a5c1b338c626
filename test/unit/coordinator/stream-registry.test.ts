import { expect, it } from "vitest";
import { StreamRegistry, isOpen } from "../../../src/coordinator/stream-registry.js";
import { WorkerStream } from "./rollout-stage.js";

const registryOf = () => new StreamRegistry<object>();
const stream = () => new WorkerStream({});

it("sends to the newest incarnation and ends the one before", () => {
  const registry = registryOf();
  const [older, newer] = [stream(), stream()];
  registry.bind("w", 1, older as never);
  registry.bind("w", 2, newer as never);
  expect(isOpen(older)).toBe(false);
  expect(registry.send("w", { task: {} })).toBe(true);
  expect([older.received.length, newer.received.length]).toEqual([0, 1]);
});

it("refuses an incarnation that was replaced", () => {
  const registry = registryOf();
  registry.bind("w", 2, stream() as never);
  expect(() => registry.bind("w", 1, stream() as never)).toThrow(expect.objectContaining({ code: "FENCED" }));
  expect(registry.isBound("w", 2)).toBe(true);
});

it("says when there is nobody to send to", () => {
  const registry = registryOf();
  expect(registry.send("w", {})).toBe(false);
  const call = stream();
  registry.bind("w", 1, call as never);
  call.end();
  expect(registry.send("w", {})).toBe(false);
});

it("ends exactly the incarnation that is meant", () => {
  const registry = registryOf();
  const call = stream();
  registry.bind("w", 2, call as never);
  expect(registry.end("w", 1)).toBe(false);
  expect(isOpen(call)).toBe(true);
  expect(registry.end("w", 2)).toBe(true);
  expect(isOpen(call)).toBe(false);
  expect(registry.has("w")).toBe(false);
});

it("tells a fenced worker why", () => {
  const registry = registryOf();
  const call = stream();
  const errors: Error[] = [];
  call.on("error", (error) => errors.push(error));
  registry.bind("w", 1, call as never);
  registry.end("w", 1, { code: "FENCED", reason: "its lease ended" });
  expect(errors.map(({ message }) => message)).toEqual([expect.stringContaining("its lease ended")]);
});

it("knows whose stream broke, unless it was replaced before", () => {
  const registry = registryOf();
  const [older, newer] = [stream(), stream()];
  registry.bind("w", 1, older as never);
  registry.bind("w", 2, newer as never);
  expect(registry.drop(older as never)).toBeUndefined();
  expect(registry.drop(newer as never)).toEqual({ workerId: "w", incarnation: 2 });
  expect(registry.has("w")).toBe(false);
});

it("waits for a stream that is about to be opened, and no longer than told", async () => {
  const registry = registryOf();
  const waiting = registry.whenBound("w", 1, 60_000);
  registry.bind("other", 1, stream() as never);
  registry.bind("w", 1, stream() as never);
  expect(await waiting).toBe(true);
  expect(await registry.whenBound("w", 2, 1)).toBe(false);
});
