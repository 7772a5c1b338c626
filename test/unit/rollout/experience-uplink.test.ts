import { expect, it } from "vitest";
import { ExperienceUplink } from "../../../src/rollout/experience-uplink.js";

const limits = { batchBytes: 100, windowBytes: 250 };
const settle = () => new Promise((resolve) => setTimeout(resolve, 1));

function uplink() {
  const sent: number[] = [];
  const link = new ExperienceUplink(limits);
  void link.attach(async (batch) => void sent.push(batch.length));
  return { sent, link };
}

it("gathers experiences into messages and sends the rest when told", async () => {
  const { sent, link } = uplink();
  for (let i = 0; i < 5; i++) await link.push(`${i}`, Buffer.alloc(40));
  expect(sent).toEqual([3]);
  await link.flush();
  await link.flush();
  expect(sent).toEqual([3, 2]);
});

it("waits at the window until enough is acknowledged, having sent what was acknowledged never could be else", async () => {
  const { sent, link } = uplink();
  for (let i = 0; i < 5; i++) await link.push(`${i}`, Buffer.alloc(50));
  let isThrough = false;
  const waiting = link.push("5", Buffer.alloc(50)).then(() => (isThrough = true));
  await settle();
  expect(isThrough).toBe(false);
  expect(sent).toEqual([2, 2, 1]);
  link.acknowledge(["unknown"]);
  await settle();
  expect(isThrough).toBe(false);
  link.acknowledge(["0"]);
  await waiting;
});

it("takes a single experience larger than the window", async () => {
  const { sent, link } = uplink();
  await link.push("0", Buffer.alloc(1000));
  expect(sent).toEqual([1]);
});

it("counts an id that is sent again once", async () => {
  const { link } = uplink();
  for (let i = 0; i < 20; i++) await link.push("0", Buffer.alloc(50));
  link.acknowledge(["0"]);
  await link.push("1", Buffer.alloc(250));
});

it("lets go of who waits when the stream is gone", async () => {
  const { link } = uplink();
  await link.push("0", Buffer.alloc(250));
  const waiting = link.push("1", Buffer.alloc(250));
  link.detach();
  await waiting;
});

it("offers on the next stream what was finished without one, and what the last one left unacknowledged", async () => {
  const { sent, link } = uplink();
  for (const id of ["a", "b", "c"]) await link.push(id, Buffer.from(id.repeat(80)));
  link.acknowledge(["b"]);
  link.detach();
  await link.push("d", Buffer.alloc(1000, "d")); // more than the window: nothing waits where nothing is sent
  await link.push("e", Buffer.from("e"));
  expect(sent).toEqual([2]);
  const offered: string[] = [];
  await link.attach(async (batch) => void offered.push(...batch.map((bytes) => bytes.toString()[0])));
  expect(offered).toEqual(["a", "c", "d", "e"]);
  // It takes no room from what comes after it.
  await link.push("f", Buffer.alloc(250, "f"));
  expect(offered.at(-1)).toBe("f");
  link.acknowledge(["a", "c", "d", "e", "f"]);
  const again: number[] = [];
  await link.attach(async (batch) => void again.push(batch.length));
  expect(again).toEqual([]);
});

it("offers nothing of another run", async () => {
  const { link } = uplink();
  await link.push("a", Buffer.alloc(10));
  link.clear();
  const offered: number[] = [];
  await link.attach(async (batch) => void offered.push(batch.length));
  expect(offered).toEqual([]);
});
