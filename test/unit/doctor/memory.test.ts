import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkMemoryFits, workerAdmission } from "../../../src/cli/memory-check.js";
import { knobs } from "../../../src/cli/memory-knobs.js";
import { estimateMemory, type ProcessEstimate } from "../../../src/cli/memory-estimate.js";
import { configSchema, type Config } from "../../../src/config/schema.js";
import { machineMemory } from "../../../src/shared/machine-memory.js";

const MIB = 2 ** 20;
const fresh = (hidden: number, layers: number) => ({
  fresh: { hidden, layers, heads: 8, contextTokens: 128 },
  tokenizer: { type: "train" as const, vocabularySize: 1000 },
});
const config = (change: Record<string, unknown> = {}): Config =>
  configSchema.parse({ data: { path: "x.jsonl" }, model: fresh(512, 16), ...change });

const processOf = async (of: Config, role: string): Promise<ProcessEstimate> =>
  (await estimateMemory(of)).processes.find((process) => process.role === role)!;
const part = (process: ProcessEstimate, name: string): number =>
  process.parts.find((one) => one.name === name)!.bytes;

describe("estimateMemory", () => {
  it("counts four copies of what is trained, for actor and critic", async () => {
    const { parameters } = await estimateMemory(config());
    expect(parameters).toBe(16 * (12 * 512 ** 2 + 13 * 512) + (1000 + 128) * 512 + 2 * 512);
    const learner = await processOf(config(), "learner");
    expect(learner.stage).toBe("ppo");
    const both = 4 * (2 * parameters + 512); // the critic's head
    expect(part(learner, "parameters")).toBe(both);
    expect(part(learner, "moments")).toBe(2 * both);
    expect(part(learner, "gradients")).toBeGreaterThanOrEqual(2 * both);
  });

  it("counts the actor's moving average once", async () => {
    const { parameters } = await estimateMemory(config());
    const without = part(await processOf(config(), "learner"), "moments");
    const averaged = config({ ppo: { ema: {} } });
    expect(part(await processOf(averaged, "learner"), "moments") - without).toBe(4 * parameters);
  });

  it("counts the outer momentum, a round's start and its average when parameters are averaged", async () => {
    const summed = await processOf(config(), "learner");
    const trained = part(summed, "moments") / 2;
    for (const [averageMoments, exchanged] of [
      [true, 3],
      [false, 1],
    ] as const) {
      const averaging = config({ cluster: { sync: "parameters", averageMoments } });
      const learner = await processOf(averaging, "learner");
      expect(part(learner, "moments")).toBe(3 * trained);
      expect(part(learner, "round")).toBe(2 * exchanged * trained);
      expect(part(learner, "gradients")).toBe(part(summed, "gradients"));
    }
  });

  it("counts a window of every learner's gradient at a coordinator that sums them, or all of a smaller one", async () => {
    const gradients = async (change: Record<string, unknown>) =>
      part(await processOf(config(change), "coordinator"), "gradients");
    const star = { learners: 3, allReduce: "star" };
    expect(await gradients({ cluster: star })).toBe(3 * 16 * MIB);
    expect(await gradients({ cluster: { ...star, bulkChannel: "off" } })).toBe(2 * 3 * 16 * MIB);
    // Learners of one machine sum among themselves; those elsewhere send to it, over gRPC where no port is given.
    expect(await gradients({ cluster: { learners: 3 } })).toBe(0);
    const elsewhere = async (cluster: object) =>
      part((await estimateMemory(config({ cluster }), "coordinator")).processes[1], "gradients");
    expect(await elsewhere({ learners: 3 })).toBe(2 * 3 * 16 * MIB);
    expect(await elsewhere({ learners: 3, bulkPort: 7000 })).toBe(3 * 16 * MIB);
    expect(await elsewhere({ learners: 3, bulkPort: 7000, allReduce: "sharded" })).toBe(0);
    const tiny = { model: fresh(64, 2) };
    const trained = part(await processOf(config(tiny), "learner"), "moments") / 2;
    expect(trained).toBeLessThan(16 * MIB);
    expect(await gradients({ ...tiny, cluster: star })).toBe(3 * trained);
  });

  it("counts a gradient of all models for what is sent, and of one for every other sum of the tree and what is under way", async () => {
    const vectors = async (cluster: object, engine: object = {}) => {
      const learner = await processOf(config({ cluster, engine }), "learner");
      return part(learner, "gradients") / (part(learner, "moments") / 2);
    };
    // Eight micro-shards: beside the sum of four, those of two and of one are there when the last one's gradient comes.
    expect(await vectors({ microShards: 8, learners: 1 })).toBeCloseTo(1 + 3 / 2, 3);
    expect(await vectors({ microShards: 8, learners: 1 }, { threads: 4 })).toBeCloseTo(1 + 7 / 2, 3);
    // The first three of eight are sent as a sum of two and one alone.
    expect(await vectors({ microShards: 8, learners: 3 })).toBeCloseTo(2 + 1 / 2, 3);
    expect(await vectors({ microShards: 8, learners: 8 }, { threads: 4 })).toBe(1);
  });

  it("keeps what programs of an earlier stage needed", async () => {
    const short = { generation: { maxNewTokens: 8 }, data: { path: "x.jsonl", maxPromptTokens: 16 } };
    const learner = (stages: string[]) => processOf(config({ ...short, stages }), "learner");
    const [before, all] = [await learner(["sft", "reward"]), await learner(["sft", "reward", "ppo"])];
    expect([before.stage, all.stage]).toEqual(["reward", "ppo"]);
    expect(part(all, "programs")).toBe(part(before, "programs"));
    const given = await learner(["ppo"]);
    expect(part(given, "programs")).toBeLessThan(0.5 * part(all, "programs"));
  });

  it("counts the largest scoring pass once a thread, a session for every shape, and reads only adapters anew", async () => {
    const rollout = async (name: string, change: Record<string, unknown>) =>
      part(await processOf(config(change), "rollout"), name);
    const [short, long] = [8, 64].map((maxNewTokens) => ({
      data: { path: "x.jsonl", maxPromptTokens: 64 },
      generation: { maxNewTokens },
    }));
    // Rows of 32, 64 and 72 tokens, half read: 3 · (2 + 1) programs, 4 of prompts, decoding. Of 32 to 128 tokens, half or
    // all of the three shortest read: (2 + 2 + 2 + 1) · 2 + 4.
    const sessions = (await rollout("sessions", long)) / (await rollout("sessions", short));
    expect(sessions).toBeCloseTo((18 + 5) / (9 + 5), 5);
    const lora = { model: { ...fresh(512, 16), lora: { rank: 8 } } };
    expect(await rollout("loading", lora)).toBeLessThan(0.05 * (await rollout("loading", {})));
    const threads = (count: number) => rollout("programs", { ...long, engine: { threads: count } });
    expect(((await threads(3)) - (await threads(1))) / ((await threads(2)) - (await threads(1)))).toBeCloseTo(
      2,
      1,
    );
  });

  it("counts the language-model pass of the ptx term, and a reward model of another size", async () => {
    const programs = async (ppo: object) =>
      part(
        await processOf(
          config({ ppo, model: { ...fresh(64, 2), tokenizer: { type: "path", path: "/nowhere" } } }),
          "learner",
        ),
        "programs",
      );
    expect(await programs({ ptx: {} })).toBeGreaterThanOrEqual(await programs({}));
    const folder = await mkdtemp(join(tmpdir(), "troupe-reward-"));
    const small = {
      model_type: "gpt2",
      vocab_size: 1000,
      n_positions: 128,
      n_embd: 64,
      n_layer: 2,
      n_head: 2,
    };
    await writeFile(join(folder, "config.json"), JSON.stringify(small));
    const given = config({ reward: { path: folder } });
    const parameters = async (of: Config, role: string) => part(await processOf(of, role), "parameters");
    for (const role of ["learner", "rollout"])
      expect(await parameters(given, role)).toBeLessThan(0.6 * (await parameters(config(), role)));
    await rm(folder, { recursive: true });
  });

  it("puts on the GPU what is computed there, and updates beside what they replace", async () => {
    const host = await processOf(config(), "learner");
    const device = await processOf(config({ engine: { name: "onnx", provider: "webgpu" } }), "learner");
    expect(host.deviceBytes).toBe(0);
    expect(part(device, "moments")).toBe(part(host, "moments") * 2.5); // m and v, and p, m and v once more
    expect(device.deviceBytes).toBeGreaterThan(part(device, "parameters") + part(device, "moments"));
    expect(device.bytes).toBeLessThan(0.5 * host.bytes);
    expect(device.bytes + device.deviceBytes).toBe(device.parts.reduce((sum, { bytes }) => sum + bytes, 0));
  });

  it("gives frozen parameters neither gradients nor moments", async () => {
    const adapted = config({ model: { ...fresh(512, 16), lora: { rank: 8 } } });
    const [whole, lora] = [await processOf(config(), "learner"), await processOf(adapted, "learner")];
    expect(part(lora, "parameters")).toBeGreaterThan(part(whole, "parameters"));
    for (const name of ["moments", "gradients"])
      expect(part(lora, name)).toBeLessThan(0.05 * part(whole, name));
  });

  it("counts actor and reference, critic and reward model once each under frozen adapters", async () => {
    const { parameters } = await estimateMemory(config());
    const rollout = async (lora: object | null, frozenWeights = "f32") =>
      part(
        await processOf(config({ model: { ...fresh(512, 16), lora }, engine: { frozenWeights } }), "rollout"),
        "parameters",
      );
    const twoModels = 4 * (2 * parameters + 512);
    const shared = await rollout({ rank: 8 });
    expect(shared).toBeGreaterThan(twoModels);
    expect(shared).toBeLessThan(1.06 * twoModels);
    expect(await rollout({ rank: 8, onlyOptimizeLora: false })).toBe(await rollout(null));
    // int8 judges are models of their own.
    expect(await rollout({ rank: 8 }, "int8")).toBeGreaterThan(await rollout(null, "int8"));
  });

  it("counts an int8 reference and reward model twice at a quarter of their size, and what each shape keeps", async () => {
    const { parameters } = await estimateMemory(config());
    const rollout = async (frozenWeights: string, maxNewTokens: number) =>
      part(
        await processOf(
          config({
            data: { path: "x.jsonl", maxPromptTokens: 32 - maxNewTokens },
            generation: { maxNewTokens },
            engine: { frozenWeights },
          }),
          "rollout",
        ),
        "parameters",
      );
    expect(await rollout("f32", 8)).toBe(4 * (4 * parameters + 2 * 512));
    // One shape: rows of 32 tokens, half of them read. A session each for reference and reward model.
    const sessions = 2 * 6 * MIB;
    const saved = (await rollout("f32", 8)) - (await rollout("int8", 8)) + sessions;
    expect(saved / (2 * 4 * parameters)).toBeGreaterThan(0.47); // a half, less the scales
    expect(saved / (2 * 4 * parameters)).toBeLessThan(0.5);
    // A second shape of the reference, with all positions read.
    const kept = (await rollout("int8", 24)) - (await rollout("int8", 8)) - sessions / 2;
    expect(kept / (4 * parameters)).toBeGreaterThan(0.17);
    expect(kept / (4 * parameters)).toBeLessThan(0.19);
  });

  it("grows the cache with slots and tokens, and the programs with batch and length", async () => {
    const rollout = (change: Record<string, unknown>) => processOf(config(change), "rollout");
    const cache = async (slots: number) => part(await rollout({ generation: { slots } }), "cache");
    expect(await cache(16)).toBe(2 * (await cache(8)));
    // 16 layers, keys and values, 16 slots, 112 tokens of 512 numbers.
    expect(await cache(16)).toBe(4 * 16 * 2 * 16 * 112 * 512);
    const programs = async (microBatchTokens: number) =>
      part(
        await processOf(
          config({ stages: ["sft"], sft: { batchSize: 256 }, engine: { microBatchTokens } }),
          "learner",
        ),
        "programs",
      );
    expect(await programs(2048)).toBeGreaterThan(2 * (await programs(512)));
  });

  it("has no rollout workers without ppo, and a total over all processes", async () => {
    const supervised = await estimateMemory(config({ stages: ["sft", "reward"] }));
    expect(supervised.processes.map(({ role }) => role)).toEqual(["launcher", "coordinator", "learner"]);
    const { processes, totalBytes } = await estimateMemory(config({ cluster: { learners: 3, rollouts: 5 } }));
    expect(totalBytes).toBe(processes.reduce((sum, { count, bytes }) => sum + count * bytes, 0));
    expect(processes.map(({ count }) => count)).toEqual([1, 1, 3, 5]);
    for (const { parts, bytes } of processes)
      expect(parts.reduce((sum, one) => sum + one.bytes, 0)).toBe(bytes);
  });
});

describe("workerAdmission", () => {
  const host = (memoryMib: number, learners: number, rollouts = 0) => ({
    host: "node-7",
    memoryBytes: memoryMib * MIB,
    learners,
    rollouts,
  });

  it("adds up what is started on the machine together, and nothing else", async () => {
    const of = config({ cluster: { learners: 64, rollouts: 64 } });
    const [learner, rollout] = [await processOf(of, "learner"), await processOf(of, "rollout")];
    const admit = (await workerAdmission(of))!;
    const enough = (2 * learner.bytes + 3 * rollout.bytes) / MIB;
    expect(() => admit(host(enough, 2, 3))).not.toThrow();
    expect(() => admit(host(enough - 1, 2, 3))).toThrow(/2 learners of .*, 3 rollouts of .* need about/);
    expect(() => admit(host(enough - 1, 2, 2))).not.toThrow();
    expect(() => admit(host(learner.bytes / MIB - 1, 1))).toThrow(/: 1 learner of [^,]* need about/);
  });

  it("refuses with the machine's name, what it has, and what to lower there and in the config", async () => {
    const admit = (await workerAdmission(config()))!;
    expect(() => admit(host(1024, 2))).toThrow(
      expect.objectContaining({
        code: "CONFIG",
        message: expect.stringMatching(
          /workers started on node-7 do not fit it: .* and it has 1\.0 GiB\. Lower the learners there \(2; .*engine\.recompute: layers/,
        ) as string,
      }),
    );
  });

  it("asks nothing when the check is off, or the model is one that only the workers can read", async () => {
    expect(await workerAdmission(config({ cluster: { memoryCheck: false } }))).toBeUndefined();
    expect(await workerAdmission(config({ model: { path: "/nowhere/model" } }))).toBeUndefined();
  });
});

describe("checkMemoryFits", () => {
  it("only notes what does not fit when the check is off", async () => {
    const large = { cluster: { learners: 4, rollouts: 2, memoryCheck: false } };
    expect(await checkMemoryFits(config(large), machine(4096))).toMatch(
      /this run does not fit this machine: .* and it has 4\.0 GiB/,
    );
  });

  const machine = (usable: number, free = usable) => ({
    usableBytes: usable * MIB,
    freeBytes: free * MIB,
    isContainerLimit: false,
  });

  it("refuses a run that the machine cannot hold, with the settings that lower it", async () => {
    const refusal = checkMemoryFits(config({ cluster: { learners: 4, rollouts: 2 } }), machine(4096));
    await expect(refusal).rejects.toThrow(
      /does not fit this machine: .* 4 learners of .* and it has 4\.0 GiB/,
    );
    for (const knob of [/cluster\.learners \(4; /, /cluster\.rollouts \(2\)/, /model\.lora/])
      await expect(refusal).rejects.toThrow(knob);
  });

  it("only notes that little is free now, and says nothing when it fits", async () => {
    const tiny = config({ model: fresh(64, 2) });
    expect(await checkMemoryFits(tiny, machine(8192, 512))).toMatch(/512 MiB of memory are free now/);
    expect(await checkMemoryFits(tiny, machine(8192))).toBeNull();
    expect(machineMemory().freeBytes).toBeLessThanOrEqual(machineMemory().usableBytes);
  });

  it("names no setting that lowers nothing", async () => {
    const least = config({ cluster: { learners: 1, rollouts: 1 }, model: { ...fresh(64, 2), lora: {} } });
    expect((await knobs(least)).join()).not.toMatch(/cluster|lora/);
    const supervised = await knobs(config({ stages: ["sft"], cluster: { learners: 1, rollouts: 4 } }));
    expect(supervised.join()).not.toMatch(/rollouts|slots|int8|threads|ema|ptx/);
  });

  it("names what does most first, found by estimating again", async () => {
    const many = config({ cluster: { learners: 8, rollouts: 2 } });
    expect((await knobs(many))[0]).toMatch(/^cluster\.learners/);
    const sampling = config({ cluster: { learners: 1, rollouts: 8 } });
    expect((await knobs(sampling))[0]).toMatch(/^cluster\.rollouts|^model\.fresh/);
    const long = config({
      stages: ["sft"],
      cluster: { learners: 1 },
      engine: { threads: 8, microBatchTokens: 8192 },
      sft: { batchSize: 512 },
    });
    const named = await knobs(long);
    expect(named.slice(0, 3).join()).toMatch(/engine\.threads \(8\)/);
    expect(named.join()).toMatch(/engine\.microBatchTokens \(8192\)/);
    const averaging = config({ ppo: { ema: {} }, cluster: { sync: "parameters", averageMoments: true } });
    expect((await knobs(averaging)).join()).toMatch(/averageMoments: false.*ppo\.ema/);
  });

  it("names none where none would help", async () => {
    const refusal = checkMemoryFits(
      config({ cluster: { learners: 1 }, model: fresh(64, 2) }),
      machine(64),
      "coordinator",
    );
    await expect(refusal).rejects.toThrow(/and it has 64 MiB\. troupe doctor --config shows where it goes/);
  });

  it("names the width of a model that has but one layer", async () => {
    const wide = config({ stages: ["sft"], cluster: { learners: 1 }, model: fresh(2048, 1) });
    expect((await knobs(wide)).join()).toMatch(/model\.fresh\.layers and hidden/);
  });

  it("asks of a coordinator's machine only what the coordinator needs", async () => {
    const large = config({ cluster: { learners: 4, rollouts: 2 } });
    await expect(checkMemoryFits(large, machine(4096))).rejects.toThrow(/engine\.recompute: layers/);
    expect(await checkMemoryFits(large, machine(4096), "coordinator")).toBeNull();
    await expect(checkMemoryFits(large, machine(200), "coordinator")).rejects.toThrow(/1 coordinator of/);
  });
});

describe("the vocabulary of a given tokenizer", () => {
  it("is its largest id + 1, so that a small one is not taken for GPT-2's", async () => {
    const folder = await mkdtemp(join(tmpdir(), "troupe-tokenizer-"));
    const of = async () =>
      (await estimateMemory(config({ model: { path: null, tokenizer: { type: "path", path: folder } } })))
        .parameters;
    const unread = await of();
    const file = { model: { type: "BPE", vocab: { a: 0, b: 1, c: 299 } }, added_tokens: [{ id: 300 }] };
    await writeFile(join(folder, "tokenizer.json"), JSON.stringify(file));
    const { hidden } = config({ model: { path: null } }).model.fresh;
    expect(unread - (await of())).toBe((50_257 - 301) * hidden);
    await rm(folder, { recursive: true });
  });
});
