/**
 * What a user gets wrong, and what the program then says: one message that names the thing, what was expected and what
 * came, with the exit code that says whose fault it was. Every case starts the real program.
 */
import {
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EXIT_CODES } from "../../src/shared/errors.js";
import { UserFolder } from "./fixtures.js";

let user: UserFolder;
let rows: string[];

beforeAll(async () => {
  user = await UserFolder.make();
  rows = user.read("data.jsonl").trimEnd().split("\n");
});
afterAll(() => user.remove());

/** Runs, and checks what every failure has in common. @returns the message */
async function refusal(sets: readonly string[], code: number): Promise<string> {
  const runDir = user.runDir();
  const { stderr, ...finished } = await user.run(sets, runDir);
  expect({ code: finished.code, stderr }).toMatchObject({ code });
  expect(stderr.match(/^error: /gm)).toHaveLength(1);
  expect(stderr).not.toMatch(/^\s+at .*:\d+:\d+\)?$/m); // a stack trace is no message
  expect(existsSync(join(runDir, "summary.json"))).toBe(false);
  expect(existsSync(join(runDir, "models"))).toBe(false);
  return stderr;
}

const fromModel = (folder: string): string[] => [
  `model.path=${folder}`,
  "model.tokenizer={type: from-model}",
];

function editJson(folder: string, name: string, edit: (json: Record<string, unknown>) => void): void {
  const path = join(folder, name);
  const json = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
  edit(json);
  writeFileSync(path, JSON.stringify(json));
}

type Case = [what: string, sets: () => string[], message: RegExp];

describe("bad data ends the run with 65", () => {
  it.concurrent.each<Case>([
    [
      "no such file",
      () => ["data.path=nowhere.jsonl"],
      /data\.path .*nowhere\.jsonl does not exist; expected a JSONL file/,
    ],
    [
      "an empty file",
      () => [`data.path=${user.write("empty.jsonl", "")}`],
      /empty\.jsonl is empty; expected one JSON object per line/,
    ],
    [
      "a line that is not JSON, by its number",
      () => [
        `data.path=${user.write("broken.jsonl", [...rows.slice(0, 40), '{"prompt": ', ...rows.slice(40)].join("\n"))}`,
      ],
      /broken\.jsonl, line 41: not valid JSON .*data\.onBadRow: skip/,
    ],
    [
      "a line without the column the others have",
      () => [
        `data.path=${user.write("hole.jsonl", [...rows.slice(0, 9), '{"chosen": "a", "rejected": "b"}', ...rows.slice(9)].join("\n"))}`,
      ],
      /hole\.jsonl, line 10: column "prompt" is missing or null/,
    ],
    [
      "columns of other names",
      () => [`data.path=${user.write("named.jsonl", '{"text": "a"}\n')}`],
      /no usable columns; it has: text\. Expected "chosen" and "rejected"/,
    ],
    [
      "a gzip file cut short",
      () => [`data.path=${user.write("cut.jsonl.gz", gzipSync(rows.join("\n")).subarray(0, 900))}`],
      /cut\.jsonl\.gz: the gzip stream ends too early/,
    ],
    [
      "prompts that are all too long, with the number to write instead",
      () => ["data.maxPromptTokens=2"],
      /no training rows left for sft: .*prompt-too-long 24.*raise data\.maxPromptTokens from 2 \(half of the dropped prompts have at most \d+ tokens\)/,
    ],
  ])("%s", async (_what, sets, message) => expect(await refusal(sets(), 65)).toMatch(message));
});

describe("a bad configuration ends the run with 2", () => {
  it.concurrent.each<Case>([
    [
      "an unknown key, with the one that was meant",
      () => ["ppo.iteratons=3"],
      /unknown key ppo\.iteratons; did you mean .*iterations/,
    ],
    [
      "batch sizes that do not divide, with the arithmetic",
      () => ["ppo.minibatchSize=24"],
      /ppo\.minibatchSize 24 must divide rolloutBatchSize 8 × samplesPerPrompt 1 × generationBatches 1 = 8: 8 ÷ 24 = 0\.333; 8 would/,
    ],
    [
      "a batch larger than the split",
      () => ["sft.batchSize=64"],
      /sft\.batchSize: 64 rows per step, but the sft split has only 2\d training rows/,
    ],
    [
      "ppo without a reward model",
      () => ["stages=[ppo]", ...fromModel("model")],
      /stage ppo needs a reward model: stages is \[ppo\] and reward\.path is null; add the reward stage/,
    ],
    [
      "ppo without a policy",
      () => ["stages=[reward, ppo]"],
      /stage ppo needs a trained policy: .*model\.path is null; add the sft stage/,
    ],
    [
      "sequences longer than the model can read, with the arithmetic",
      () => ["data.maxPromptTokens=40", ...fromModel("model")],
      /data\.maxPromptTokens 40 \+ generation\.maxNewTokens 12 = 52 tokens do not fit the 48 tokens that model\.path .* can read; lower one of them by 4/,
    ],
    [
      "an open address without a join token",
      () => ["cluster.host=0.0.0.0"],
      /cluster\.host 0\.0\.0\.0 is reachable from other machines, so cluster\.tokenFile is needed/,
    ],
  ])("%s", async (_what, sets, message) => expect(await refusal(sets(), EXIT_CODES.CONFIG)).toMatch(message));

  it("a port that is taken", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as AddressInfo;
    try {
      expect(await refusal([`cluster.port=${port}`], EXIT_CODES.CONFIG)).toMatch(
        new RegExp(`cannot listen on 127\\.0\\.0\\.1:${port}; is another program using the port\\?`),
      );
    } finally {
      server.close();
    }
  });
});

describe("a model that cannot be used ends the run with 65 before anything is trained", () => {
  it.concurrent.each<Case>([
    [
      "no such directory",
      () => fromModel("nomodel"),
      /model\.path .*nomodel does not exist; expected a Hugging Face model directory/,
    ],
    [
      "an architecture nobody wrote",
      () =>
        fromModel(
          user.spoiltModel("bert", (folder) =>
            editJson(folder, "config.json", (json) => (json.model_type = "bert")),
          ),
        ),
      /model\.path .*bert cannot be used: config\.json: model_type "bert" is not supported; expected one of gpt2,/,
    ],
    [
      "weights of another width than config.json says",
      () =>
        fromModel(
          user.spoiltModel("wide", (folder) => editJson(folder, "config.json", (json) => (json.n_embd = 32))),
        ),
      /tensor transformer\.\S+ has shape \[[\d, ]+\], expected \[[\d, ]+\] as config\.json says/,
    ],
    [
      "weights cut short",
      () =>
        fromModel(user.spoiltModel("cut", (folder) => truncateSync(join(folder, "model.safetensors"), 9000))),
      /cut\/model\.safetensors: file is cut off: 9000 bytes, header describes \d+/,
    ],
    [
      "a weight that is not a number",
      () =>
        fromModel(
          user.spoiltModel("nan", (folder) => {
            const path = join(folder, "model.safetensors");
            const bytes = readFileSync(path);
            bytes.writeFloatLE(NaN, bytes.length - 4);
            writeFileSync(path, bytes);
          }),
        ),
      /nan\/model\.safetensors: tensor "transformer\.\S+": element \d+ is NaN; weights must be finite/,
    ],
    [
      "a pickle, with how to convert it",
      () =>
        fromModel(
          user.spoiltModel("pickle", (folder) =>
            renameSync(join(folder, "model.safetensors"), join(folder, "pytorch_model.bin")),
          ),
        ),
      /pytorch_model\.bin is a pickle, which can run code .*safe_serialization=True/,
    ],
    [
      "a reward model as a pickle, with the class that keeps its score",
      () => {
        const scorer = user.spoiltModel("pickled-scorer", (folder) => {
          const config = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as object;
          const stated = { ...config, architectures: ["GPT2ForSequenceClassification"] };
          writeFileSync(join(folder, "config.json"), JSON.stringify(stated));
          renameSync(join(folder, "model.safetensors"), join(folder, "pytorch_model.bin"));
        });
        return ["stages=[ppo]", `reward.path=${scorer}`, ...fromModel("model")];
      },
      /transformers: GPT2ForSequenceClassification\.from_pretrained\(".*pickled-scorer"\)/,
    ],
    [
      "no tokenizer in it",
      () => fromModel(user.spoiltModel("mute", (folder) => rmSync(join(folder, "tokenizer.json")))),
      /mute has no tokenizer\.json; expected tokenizer\.json and tokenizer_config\.json/,
    ],
    [
      "a language model given as reward model",
      () => ["stages=[ppo]", "reward.path=model", ...fromModel("model")],
      /reward\.path .*tensor score\.weight is missing; .* train one with the reward stage/,
    ],
  ])("%s", async (_what, sets, message) => expect(await refusal(sets(), 65)).toMatch(message));

  it("a tokenizer with more tokens than the model has embeddings, in numbers", async () => {
    await user.saveModel("small", user.vocabularySize - 3);
    const stderr = await refusal(fromModel("small"), 65);
    expect(stderr).toContain(`the model has embeddings for ${user.vocabularySize - 3} tokens`);
    expect(stderr).toContain(`ids up to ${user.vocabularySize - 1} (${user.vocabularySize} tokens)`);
  });

  it("a model made with another tokenizer of the same size, by the first token that differs", async () => {
    const swapped = user.spoiltModel("swapped", (folder) => {
      const path = join(folder, "tokenizer.json");
      const tokenizer = JSON.parse(readFileSync(path, "utf8")) as {
        model: { vocab: Record<string, number> };
      };
      const { vocab } = tokenizer.model;
      for (const [word, id] of Object.entries(vocab))
        if (id >= 5) vocab[word] = id === 5 ? 6 : id === 6 ? 5 : id;
      writeFileSync(path, JSON.stringify(tokenizer));
    });
    const stderr = await refusal([`model.path=${swapped}`], 65);
    expect(stderr).toMatch(
      /model\.path .*swapped: the model was made with another tokenizer than the run's: token 5 is "\S+" in .*swapped.tokenizer\.json and "\S+" in .*tokenizer.tokenizer\.json; use the model's own tokenizer/,
    );
  });
});

describe("a run directory", () => {
  it("that holds a run is left as it is, and --resume auto refuses another configuration", async () => {
    const runDir = user.runDir();
    const refused = await user.run(["data.maxPromptTokens=2"], runDir);
    expect(refused.code).toBe(65);
    const before = readdirSync(runDir, { recursive: true }).sort();
    const again = await user.run([], runDir);
    expect(again).toMatchObject({ code: EXIT_CODES.CONFIG });
    expect(again.stderr).toMatch(
      /holds a run already; continue it with --resume auto, or name another --run-dir/,
    );
    const drifted = await user.troupe(["run", "config.yaml", "--run-dir", runDir, "--resume", "auto"]);
    expect(drifted).toMatchObject({ code: EXIT_CODES.CONFIG });
    expect(drifted.stderr).toMatch(
      /started with other settings:\n {2}data\.maxPromptTokens: was 2, is now 20/,
    );
    expect(readdirSync(runDir, { recursive: true }).sort()).toEqual(before);
  });
});
