import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { examine } from "../../../src/cli/doctor.js";

const folder = mkdtempSync(join(tmpdir(), "troupe-doctor-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What doctor says of one subject. */
async function saidOf(subject: string, engine: object): Promise<string[]> {
  const file = join(folder, "config.yaml");
  writeFileSync(file, JSON.stringify({ data: { path: "x.jsonl" }, engine })); // JSON is YAML
  const { lines } = await examine({ config: file });
  return lines.filter((line) => line.split(/\s+/)[1] === subject);
}

it("adds up what lies in the machine's memory and what lies on a GPU apart", async () => {
  const gpu = { name: "onnx", provider: "webgpu" };
  const [onCpu, inMachine] = [await saidOf("learner", {}), await saidOf("learner", gpu)];
  expect(onCpu.join()).toMatch(/: node .* \+ parameters .* \+ gradients /);
  expect(inMachine.join()).toMatch(/: node .* \+ gradients /);
  expect(inMachine.join()).not.toMatch(/parameters|moments/);
  expect(await saidOf("device", {})).toEqual([]);
  expect((await saidOf("device", gpu)).join()).toMatch(
    /each learner .* on its GPU.*: parameters .* \+ moments /,
  );
});
