/** What users bring besides a config: models of other programs, chats, a reward model. Real fleets, three stages. */
import { readFileSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadModelDir, saveModelDir } from "../../src/models/checkpoint-dir.js";
import { initParams, parseModelConfig, type ModelSpec } from "../../src/models/model-spec.js";
import { SafetensorsFile } from "../../src/shared/safetensors.js";
import { UserFolder } from "./fixtures.js";

let user: UserFolder;
beforeAll(async () => {
  user = await UserFolder.make();
});
afterAll(() => user.remove());

interface Summary {
  readonly sft?: object;
  readonly ppo?: {
    readonly experiences: { readonly admitted: number; readonly trained: number; readonly buffered: number };
  };
}

async function finishedRun(sets: readonly string[]): Promise<{ summary: Summary; runDir: string }> {
  const runDir = user.runDir();
  const { code, stderr, stdout } = await user.run(
    ["cluster.rollouts=1", "cluster.learners=1", ...sets],
    runDir,
  );
  expect({ code, stderr, tail: code === 0 ? "" : stdout.slice(-2000) }).toEqual({
    code: 0,
    stderr: "",
    tail: "",
  });
  return { summary: JSON.parse(readFileSync(join(runDir, "summary.json"), "utf8")) as Summary, runDir };
}

/** Rewrites a model's weights as bfloat16 in two files with an index, as large models come. */
async function shard(folder: string): Promise<void> {
  const single = join(folder, "model.safetensors");
  const file = await SafetensorsFile.open(single);
  const { tensors, dataStart } = file.header;
  await file.close();
  const bytes = readFileSync(single);
  const half = Math.ceil(tensors.length / 2);
  const weightMap: Record<string, string> = {};
  for (const [i, part] of [tensors.slice(0, half), tensors.slice(half)].entries()) {
    const name = `model-0000${i + 1}-of-00002.safetensors`;
    const header: Record<string, object> = {};
    const data: Buffer[] = [];
    let begin = 0;
    for (const tensor of part) {
      const values = bytes.subarray(dataStart + tensor.begin, dataStart + tensor.end);
      const upper = Buffer.alloc(values.length / 2);
      for (let at = 0; at < upper.length; at += 2) values.copy(upper, at, at * 2 + 2, at * 2 + 4);
      header[tensor.name] = {
        dtype: "BF16",
        shape: tensor.shape,
        data_offsets: [begin, begin + upper.length],
      };
      begin += upper.length;
      data.push(upper);
      weightMap[tensor.name] = name;
    }
    const json = Buffer.from(JSON.stringify(header));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(json.length));
    writeFileSync(join(folder, name), Buffer.concat([length, json, ...data]));
  }
  writeFileSync(
    join(folder, "model.safetensors.index.json"),
    JSON.stringify({ metadata: {}, weight_map: weightMap }),
  );
  await rm(single);
}

const TEMPLATE =
  "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

// Each starts fleets, which take turns with whatever else runs on the machine.
describe("a run", { timeout: 180_000 }, () => {
  it("takes a sharded bfloat16 model and leaves models that generate answers", async () => {
    const folder = user.spoiltModel("sharded", (copy) => {
      // As a backbone alone is saved, by a current transformers.
      const config = JSON.parse(readFileSync(join(copy, "config.json"), "utf8")) as object;
      const stated = { ...config, architectures: ["GPT2Model"], dtype: "bfloat16" };
      writeFileSync(join(copy, "config.json"), JSON.stringify(stated));
      const generation = { eos_token_id: [0, 5], temperature: 0.6 };
      writeFileSync(join(copy, "generation_config.json"), JSON.stringify(generation));
    });
    await shard(folder);
    const { summary, runDir } = await finishedRun([
      `model.path=${folder}`,
      "model.tokenizer={type: from-model}",
    ]);
    expect(summary.ppo?.experiences).toMatchObject({ admitted: 8, trained: 8, buffered: 0 });
    const saved = (model: string, file = "config.json") =>
      JSON.parse(readFileSync(join(runDir, "models", model, file), "utf8")) as object;
    expect(saved("ppo")).toMatchObject({ architectures: ["GPT2LMHeadModel"], eos_token_id: [0, 5] });
    expect(saved("ppo", "generation_config.json")).toMatchObject({ eos_token_id: [0, 5], temperature: 0.6 });
    expect(saved("reward")).toMatchObject({
      architectures: ["GPT2ForSequenceClassification"],
      num_labels: 1,
    });
    expect(Object.keys(saved("ppo"))).not.toContain("dtype");
    const answer = await user.troupe([
      "generate",
      "--model",
      join(runDir, "models", "ppo"),
      ...["--prompt", "Hello", "--min-new-tokens", "6", "--max-new-tokens", "7"],
      ...["--repetition-penalty", "100", "--greedy"],
    ]);
    expect(answer).toMatchObject({ code: 0, stderr: "" });
    const scorer = await user.troupe(["chat", "--model", join(runDir, "models", "reward")]);
    expect(scorer.code).toBe(65);
    expect(scorer.stderr).toMatch(/reward is a reward model: it scores answers and writes none/);
    const { answer: text, tokens } = JSON.parse(answer.stdout.trim()) as { answer: string; tokens: number };
    expect(tokens).toBe(7);
    const words = text.trim().split(/\s+/);
    expect(new Set(words).size).toBe(words.length); // greedy answers of so small a model repeat themselves otherwise
  });

  it("ends well when nothing is held out to measure it by", async () => {
    const { summary } = await finishedRun(["data.evalFraction=0", "eval.prompts=0"]);
    expect(summary.ppo).toMatchObject({
      heldOutReward: { before: null, after: null },
      experiences: { trained: 8 },
    });
  });

  it("takes DeepSpeed-Chat's pair: an OPT policy, and OPT-350m's shape as reward model and critic", async () => {
    const opt = {
      model_type: "opt",
      vocab_size: user.vocabularySize,
      hidden_size: 16,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      ffn_dim: 32,
      max_position_embeddings: 48,
      bos_token_id: 0,
      eos_token_id: 0,
      pad_token_id: 1,
    };
    const save = async (name: string, spec: ModelSpec) => {
      const folder = join(user.path, name);
      await saveModelDir(folder, spec, initParams(spec, 4), { tokenizerDir: join(user.path, "tokenizer") });
      return folder;
    };
    const critic = { hidden_size: 24, word_embed_proj_dim: 8, do_layer_norm_before: false };
    const { summary, runDir } = await finishedRun([
      `model.path=${await save("opt", parseModelConfig(opt, "lm"))}`,
      "model.tokenizer={type: from-model}",
      `reward.path=${await save("opt-350m", parseModelConfig({ ...opt, ...critic }, "scalar"))}`,
    ]);
    expect(summary.ppo?.experiences).toMatchObject({ admitted: 8, trained: 8, buffered: 0 });
    const [start, end] = await Promise.all(
      [join(user.path, "opt-350m"), join(runDir, "models", "ppo-critic")].map((dir) =>
        loadModelDir(dir, "scalar"),
      ),
    );
    expect(end.spec).toEqual(start.spec);
    expect(end.values).not.toEqual(start.values);
  });

  it("takes chats, renders them with the template beside the tokenizer, and a reward model instead of training one", async () => {
    const { runDir } = await finishedRun(["stages=[reward]"]);
    const chats = user
      .read("data.jsonl")
      .trimEnd()
      .split("\n")
      .map((line) => {
        const { prompt, chosen } = JSON.parse(line) as { prompt: string; chosen: string };
        return JSON.stringify({
          messages: [
            { role: "user", content: prompt },
            { role: "assistant", content: chosen },
          ],
        });
      });
    const folder = user.spoiltModel("chat", (chat) =>
      writeFileSync(join(chat, "chat_template.jinja"), TEMPLATE),
    );
    const { summary, runDir: chatRun } = await finishedRun([
      `data.path=${user.write("chats.jsonl", chats.join("\n"))}`,
      "data.maxPromptTokens=30",
      "data.maxResponseTokens=18",
      "sft.batchSize=4",
      "cluster.microShards=4",
      `model.path=${folder}`,
      "model.tokenizer={type: from-model}",
      `reward.path=${join(runDir, "models", "reward")}`,
    ]);
    expect(Object.keys(summary)).toEqual(expect.arrayContaining(["sft", "ppo"]));
    const model = join(chatRun, "models", "ppo");
    expect(readFileSync(join(model, "chat_template.jinja"), "utf8")).toBe(TEMPLATE);
    // The conversation grows from turn to turn.
    const chat = await user.troupe(
      ["chat", "--model", model, "--min-new-tokens", "2", "--max-new-tokens", "3", "--greedy"],
      `Hello\nHello\n${"Hello ".repeat(60)}\n/clear\nHello\n/quit\n`,
    );
    expect(chat.code).toBe(0);
    expect(chat.stderr).toMatch(
      /^error: .* tokens leave no room for a response in 48; this is all the model can read.*\/clear starts over/,
    );
    const [, mode, first, , again] = chat.stdout.trim().split("\n");
    expect(mode).toBe("The model sees the whole conversation.");
    expect(first).not.toBe("");
    expect(again).toBe(first);
  });
});
