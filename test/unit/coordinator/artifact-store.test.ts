import { createHash, randomUUID } from "node:crypto";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { handoverName } from "../../../src/rpc/handover.js";
import { ArtifactStore } from "../../../src/coordinator/artifact-store.js";

let folder: string;
let store: ArtifactStore;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "troupe-artifacts-"));
  store = new ArtifactStore(join(folder, "store"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const bytes = Buffer.from("weights of version 3, in two chunks");
const refOf = (name: string, content: Buffer = bytes) => ({
  name,
  sizeBytes: content.length,
  sha256: createHash("sha256").update(content).digest("hex"),
  localPath: "/etc/passwd", // what a worker says about paths is never believed
});
async function* chunksOf(...chunks: (Buffer | Error)[]): AsyncGenerator<Uint8Array> {
  for (const chunk of chunks) {
    await Promise.resolve();
    if (chunk instanceof Error) throw chunk;
    yield chunk;
  }
}
async function textOf(name: string): Promise<string> {
  const parts: Buffer[] = [];
  for await (const chunk of store.read(name)) parts.push(chunk);
  return Buffer.concat(parts).toString();
}
/** Files anywhere under the store. */
const files = () =>
  existsSync(join(folder, "store"))
    ? readdirSync(join(folder, "store"), { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map(({ name }) => name)
    : [];

describe("ArtifactStore", () => {
  it("stores an upload in the place its name gives, whatever path was announced", async () => {
    const ref = await store.receive(refOf("actor/3"), chunksOf(bytes.subarray(0, 10), bytes.subarray(10)));
    expect(ref.localPath).toBe(join(folder, "store", "actor", "3.safetensors"));
    expect(await textOf("actor/3")).toBe(bytes.toString());
    expect(store.get("actor/3").sha256).toBe(refOf("").sha256);
  });

  it.each<[string, () => AsyncGenerator<Uint8Array>, string]>([
    ["another sha256", () => chunksOf(Buffer.from(bytes.toString().replace("3", "4"))), "DATA"],
    ["fewer bytes", () => chunksOf(bytes.subarray(1)), "DATA"],
    ["more bytes than announced", () => chunksOf(bytes, Buffer.from("!")), "PROTOCOL"],
    ["nothing", () => chunksOf(), "DATA"],
  ])("refuses an upload with %s, and keeps nothing of it", async (_, chunks, code) => {
    await expect(store.receive(refOf("actor/3"), chunks())).rejects.toMatchObject({ code });
    expect(() => store.get("actor/3")).toThrow(/no artifact named actor\/3/);
    expect(files()).toEqual([]);
  });

  it("keeps nothing of an upload that breaks off, and keeps the file that was there before", async () => {
    await store.receive(refOf("actor/3"), chunksOf(bytes));
    await expect(
      store.receive(refOf("actor/3"), chunksOf(bytes.subarray(0, 5), new Error("reset"))),
    ).rejects.toThrow("reset");
    expect(await textOf("actor/3")).toBe(bytes.toString());
    expect(files()).toEqual(["3.safetensors"]);
  });

  const other = Buffer.from("other weights under the same name");
  const leave = async (content: Buffer): Promise<string> => {
    const name = handoverName();
    writeFileSync(join(await store.handoverDir(), name), content);
    return name;
  };

  it("never lets a name stand for other bytes, however they come, unless it was removed", async () => {
    await store.receive(refOf("actor/3"), chunksOf(bytes));
    const refused = { code: "PROTOCOL", message: expect.stringContaining(refOf("").sha256) as string };
    await expect(store.receive(refOf("actor/3", other), chunksOf(other))).rejects.toMatchObject(refused);
    await expect(store.takeOver(refOf("actor/3", other), await leave(other))).rejects.toMatchObject(refused);
    expect(await textOf("actor/3")).toBe(bytes.toString());
    expect(files()).toEqual(["3.safetensors"]);
    await store.receive(refOf("actor/3"), chunksOf(bytes)); // the same again is harmless
    await store.remove("actor/3");
    await store.receive(refOf("actor/3", other), chunksOf(other));
    expect(await textOf("actor/3")).toBe(other.toString());
  });

  it("keeps nothing of an upload whose sender lost its place before the end", async () => {
    const lost = () => {
      throw new Error("replaced");
    };
    await expect(store.receive(refOf("actor/3"), chunksOf(bytes), lost)).rejects.toThrow("replaced");
    await expect(store.takeOver(refOf("actor/3"), await leave(bytes), lost)).rejects.toThrow("replaced");
    expect(files()).toEqual([]);
    expect(() => store.get("actor/3")).toThrow(/no artifact/);
  });

  it.each([
    "../outside",
    "/etc/passwd",
    "actor/../../x",
    "a//b",
    "",
    ".hidden",
    "actor/",
    "a\0b",
    "a b",
    "actor\\..\\x",
  ])("refuses the name %j", async (name) => {
    await expect(store.receive(refOf(name), chunksOf(bytes))).rejects.toMatchObject({ code: "PROTOCOL" });
    expect(readdirSync(folder)).toEqual([]);
  });

  it("takes two uploads of one name at the same time, each whole", async () => {
    async function* slowly() {
      for (const byte of bytes) {
        await new Promise((resolve) => setImmediate(resolve));
        yield Buffer.of(byte);
      }
    }
    await Promise.all([store.receive(refOf("actor/3"), slowly()), store.receive(refOf("actor/3"), slowly())]);
    expect(await textOf("actor/3")).toBe(bytes.toString());
    expect(files()).toEqual(["3.safetensors"]);
  });

  it("takes up a file of an earlier process by its name", async () => {
    await store.receive(refOf("critic/0"), chunksOf(bytes));
    const restarted = new ArtifactStore(join(folder, "store"));
    expect(await restarted.recover("critic/1")).toBe(false);
    expect(await restarted.recover("critic/0")).toBe(true);
    expect(restarted.get("critic/0")).toEqual(store.get("critic/0"));
  });

  it("deletes what it wrote, and never a file it only adopted", async () => {
    const mine = join(folder, "model.safetensors");
    writeFileSync(mine, bytes);
    expect(await store.adopt("base", mine)).toMatchObject({
      sizeBytes: bytes.length,
      sha256: refOf("").sha256,
    });
    const stored = await store.receive(refOf("actor/0"), chunksOf(bytes));
    await store.remove("base");
    await store.remove("actor/0");
    await store.remove("actor/0"); // again is harmless
    expect(readFileSync(mine)).toEqual(bytes);
    expect(existsSync(stored.localPath)).toBe(false);
    expect(() => store.get("base")).toThrow();
  });

  it("takes away at the start what a killed process left half received, and nothing else", async () => {
    await store.receive(refOf("actor/0"), chunksOf(bytes));
    const partial = join(folder, "store", "actor", `1.safetensors.partial-${randomUUID()}`);
    writeFileSync(partial, "half");
    const restarted = new ArtifactStore(join(folder, "store"));
    expect(await restarted.clean()).toBe(1);
    expect(existsSync(partial)).toBe(false);
    expect(await restarted.recover("actor/0")).toBe(true);
    expect(await new ArtifactStore(join(folder, "nowhere")).clean()).toBe(0);
  });
});

describe("a file left in the handover folder", () => {
  const name = handoverName();
  const announced = { ...refOf("actor/4"), sha256: "" };
  const leave = async (content: Buffer = bytes) =>
    writeFileSync(join(await store.handoverDir(), name), content);

  it("is moved to its place, and its sha256 is the coordinator's own", async () => {
    await leave();
    const ref = await store.takeOver(announced, name);
    expect(ref).toMatchObject({
      sha256: refOf("").sha256,
      localPath: join(folder, "store", "actor", "4.safetensors"),
    });
    expect(await textOf("actor/4")).toBe(bytes.toString());
    expect(files()).toEqual(["4.safetensors"]);
  });

  it("that is not there is nobody's fault", async () => {
    expect(await store.takeOver(announced, name)).toBeUndefined();
    expect(files()).toEqual([]);
  });

  it("of another size is refused and taken away", async () => {
    await leave(bytes.subarray(1));
    await expect(store.takeOver(announced, name)).rejects.toMatchObject({ code: "DATA" });
    expect(files()).toEqual([]);
  });

  it("is only ever a file there: no path, no link", async () => {
    const secret = join(folder, "secret");
    writeFileSync(secret, bytes);
    for (const other of ["../../secret", secret, "secret", `${name}/..`])
      await expect(store.takeOver(announced, other)).rejects.toMatchObject({ code: "PROTOCOL" });
    symlinkSync(secret, join(await store.handoverDir(), name));
    await expect(store.takeOver(announced, name)).rejects.toThrow(/ELOOP/);
    expect(readFileSync(secret).equals(bytes)).toBe(true);
    expect(() => store.get("actor/4")).toThrow(/no artifact/);
  });

  it("is cleaned up by the next process when nobody took it over", async () => {
    await leave();
    expect(await new ArtifactStore(join(folder, "store")).clean()).toBe(1);
    expect(files()).toEqual([]);
  });
});
