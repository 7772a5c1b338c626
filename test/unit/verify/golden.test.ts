import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { Command } from "commander";
import { registerVerify } from "../../../src/cli/commands/verify.js";
import { createEngine } from "../../../src/engine/create-engine.js";
import { createReferenceEngine } from "../../../src/engine/reference.js";
import { makeExperience } from "../../../src/rl/make-experience.js";
import { verifyGolden } from "../../../src/verify/golden.js";
import type { Golden, PpoCase } from "../../../src/verify/golden-file.js";

const FILE = "test/golden/dschat-golden.json";
const LIMIT = 1e-5;
const engine = createReferenceEngine();
let folder: string;
let golden: Golden;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "troupe-golden-"));
  golden = JSON.parse(await readFile(FILE, "utf8")) as Golden;
});

async function written(content: unknown): Promise<string> {
  const path = join(folder, `${Math.trunc(performance.now() * 1000)}.json`);
  await writeFile(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

/** Errors by quantity after changing every ppo case's inputs. */
async function errorsAfter(change: (golden: PpoCase) => Partial<PpoCase>): Promise<Record<string, number>> {
  const path = await written({ ...golden, ppo: golden.ppo.map((c) => ({ ...c, ...change(c) })) });
  return Object.fromEntries(
    (await verifyGolden(path, engine)).map(({ quantity, maxError }) => [quantity, maxError]),
  );
}

describe("verifyGolden", () => {
  it.each(["reference", "onnx"] as const)(
    "on %s agrees with DeepSpeed-Chat in every quantity",
    async (name) => {
      const { engine } = await createEngine({ name });
      const quantities = await verifyGolden(FILE, engine);
      await engine.dispose();
      expect(quantities).toHaveLength(16);
      for (const { quantity, maxError } of quantities) expect(maxError, quantity).toBeLessThanOrEqual(LIMIT);
    },
  );

  it("notices values shifted by one token", async () => {
    const errors = await errorsAfter((c) => ({ values: c.values.map((row) => [0, ...row.slice(0, -1)]) }));
    for (const name of ["valuesZeroed", "advantages", "returns", "criticLoss", "actorLoss"]) {
      expect(errors[name], name).toBeGreaterThan(100 * LIMIT);
    }
  });

  it("notices log-probs shifted by one token", async () => {
    const errors = await errorsAfter((c) => ({ logprobs: c.logprobs.map((row) => [...row.slice(1), 0]) }));
    for (const name of ["rewards", "actorLoss", "dActorLoss_dNewLogprobs"]) {
      expect(errors[name], name).toBeGreaterThan(100 * LIMIT);
    }
  });

  it("notices a prompt that is one token longer or shorter", async () => {
    for (const by of [-1, 1]) {
      const change = (c: PpoCase) => ({ promptWidth: c.promptWidth + by });
      await expect(errorsAfter(change)).rejects.toThrow(/ppo\[0\] cannot be recomputed/);
    }
  });

  it("notices each constant", async () => {
    const expectChange = async (change: (c: PpoCase) => Partial<PpoCase>, quantity: string) =>
      expect((await errorsAfter(change))[quantity], quantity).toBeGreaterThan(10 * LIMIT);
    await expectChange((c) => ({ klCtl: c.klCtl * 1.01 }), "rewards");
    await expectChange((c) => ({ clipRewardValue: c.clipRewardValue * 1.01 }), "rewards");
    await expectChange(() => ({ gamma: 0.999 }), "advantages");
    await expectChange((c) => ({ lam: c.lam + 0.001 }), "advantages");
    await expectChange((c) => ({ cliprange: c.cliprange * 1.1 }), "actorLoss");
    await expectChange((c) => ({ cliprangeValue: c.cliprangeValue * 1.1 }), "criticLoss");
  });

  it("makeExperience with the EOS gap makes the file's rewards, advantages and returns", () => {
    for (const c of golden.ppo) {
      const start = c.promptWidth - 1;
      const rollouts = c.inputIds.map((ids, b) => {
        const firstPad = ids.indexOf(c.padId, c.promptWidth);
        const responseIds = Int32Array.from(
          ids.slice(c.promptWidth, firstPad === -1 ? undefined : firstPad + 1),
        );
        const cut = (row: number[]) => Float32Array.from(row.slice(start, start + responseIds.length));
        return {
          promptIndex: b,
          sampleIndex: 0,
          experienceId: `0/${b}/0`,
          promptIds: Int32Array.from(ids.slice(0, c.promptWidth)),
          policyVersion: 0,
          responseIds,
          logprobs: cut(c.logprobs[b]),
          refLogprobs: cut(c.refLogprobs[b]),
          values: cut(c.values[b]),
          score: c.scores[b],
          finishReason: firstPad === -1 ? ("length" as const) : ("eos" as const),
        };
      });
      const experiences = makeExperience(rollouts, {
        klCoef: c.klCtl,
        clipRewardValue: c.clipRewardValue,
        gamma: c.gamma,
        lam: c.lam,
        whitenAdvantages: false,
        eosGap: { eosId: c.padId, padId: c.padId },
        missingEosPenalty: 0,
        scoreShift: 0,
        scoreScale: 1,
      });
      experiences.forEach((experience, b) => {
        experience.advantages.forEach((x, i) => expect(x).toBeCloseTo(c.expected.advantages[b][i], 5));
        experience.returns.forEach((x, i) => expect(x).toBeCloseTo(c.expected.returns[b][i], 5));
        experience.rewards.forEach((x, i) => expect(x).toBeCloseTo(c.expected.rewards[b][start + i], 5));
        expect(experience.responseIds.length).toBe(
          Math.min(c.expected.ends[b], c.inputIds[b].length - 1) - start,
        );
      });
    }
  });
});

describe("troupe verify golden", () => {
  afterEach(() => {
    process.exitCode = undefined;
    vi.restoreAllMocks();
  });

  async function run(...files: string[]): Promise<{ exitCode: typeof process.exitCode; text: string }> {
    const lines: string[] = [];
    vi.spyOn(console, "log").mockImplementation((line: string) => void lines.push(line));
    vi.spyOn(console, "error").mockImplementation((line: string) => void lines.push(line));
    const program = new Command();
    registerVerify(program, { signal: new AbortController().signal, endedBy: undefined });
    await program.parseAsync(["node", "troupe", "verify", "golden", ...files]);
    return { exitCode: process.exitCode, text: lines.join("\n") };
  }

  it("prints every quantity and leaves exit code 0", async () => {
    const { exitCode, text } = await run(FILE);
    expect(exitCode).toBeUndefined();
    expect(text).toContain("all 16 quantities are within");
    expect(text).toMatch(/dCriticLoss_dNewValues +3 +\d\.\d\de-\d+ +yes/);
  });

  it("exits 1 and marks the quantity that is off", async () => {
    const wrong = structuredClone(golden);
    wrong.ppo[0].expected.actorLoss += 2e-4;
    const { exitCode, text } = await run(await written(wrong));
    expect(exitCode).toBe(1);
    expect(text).toMatch(/actorLoss +3 +\S+ +NO/);
  });

  it.each([
    ["a missing file", async () => join(folder, "none.json"), /none\.json: cannot be read/],
    ["no JSON", async () => written("{"), /not valid JSON/],
    ["another JSON", async () => written([1, 2]), /not a golden file/],
    ["no cases", async () => written({ source: "x" }), /holds no cases/],
    [
      "a wrong field",
      async () => written({ source: "x", ppo: [{ promptWidth: "6" }] }),
      /ppo\.0\.promptWidth/,
    ],
    [
      "rows of different length",
      async () =>
        written({ ...golden, gatherLogProbs: [{ ...golden.gatherLogProbs[0], inputIds: [[1, 2], [1]] }] }),
      /gatherLogProbs\.0\.inputIds: rows differ in length/,
    ],
  ])("exits 65 for %s and says so", async (_name, path, message) => {
    const { exitCode, text } = await run(await path());
    expect(exitCode).toBe(65);
    expect(text).toMatch(message);
  });
});
