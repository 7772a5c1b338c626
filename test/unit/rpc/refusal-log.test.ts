import { expect, test } from "vitest";
import type { Refusal } from "../../../src/rpc/auth.js";
import { makeRefusalLog } from "../../../src/rpc/refusal-log.js";

const refusal = (peer: string, reason: Refusal["reason"] = "invalid"): Refusal => ({
  method: "/m",
  peer,
  reason,
});

function recorder() {
  const lines: [string, number][] = [];
  const clock = { ms: 0 };
  const note = makeRefusalLog(
    ({ peer, reason }, suppressed) => lines.push([`${peer} ${reason}`, suppressed]),
    () => clock.ms,
  );
  return { lines, clock, note };
}

test("a stranger who knocks a thousand times from changing ports is one line, then a count", () => {
  const { lines, clock, note } = recorder();
  for (let port = 1; port <= 1000; port++) note(refusal(`10.0.0.9:${port}`));
  expect(lines).toEqual([["10.0.0.9:1 invalid", 0]]);
  clock.ms = 10_000;
  note(refusal("10.0.0.9:2000"));
  note(refusal("10.0.0.9:2001"));
  expect(lines.slice(1)).toEqual([["10.0.0.9:2000 invalid", 999]]);
});

test("another host or another reason is not drowned by it", () => {
  const { lines, note } = recorder();
  note(refusal("10.0.0.9:1"));
  note(refusal("10.0.0.9:1", "role"));
  note(refusal("[fe80::1]:1"));
  note(refusal("[fe80::2]:1"));
  expect(lines).toHaveLength(4);
});

test("what it remembers is bounded", () => {
  const { lines, note } = recorder();
  for (let host = 0; host < 3000; host++) note(refusal(`host-${host}:1`));
  note(refusal("host-0:1")); // forgotten long ago
  note(refusal("host-2999:1"));
  expect(lines).toHaveLength(3001);
});
