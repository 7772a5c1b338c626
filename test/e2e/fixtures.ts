/** A user's files and the real program: a small data set, a tokenizer, a model, and `bin/troupe.mjs` run on them. */
import { execFile, execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateDataset, toJsonl, vocabularyTexts } from "../../examples/quickstart/generate.js";
import { writeWordTokenizer } from "../../src/data/tokenizer-files.js";
import { saveModelDir } from "../../src/models/checkpoint-dir.js";
import { freshGpt2Spec, initParams } from "../../src/models/model-spec.js";
import { troupeBin } from "../../src/launcher/run-commands.js";
import { packageRoot } from "../../src/shared/paths.js";

export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class UserFolder {
  #runs = 0;

  private constructor(
    readonly path: string,
    /** Ids in the tokenizer. */
    readonly vocabularySize: number,
  ) {}

  static async make(): Promise<UserFolder> {
    execFileSync(process.execPath, ["scripts/build.mjs"], { cwd: packageRoot }); // the program runs the compiled form
    const path = mkdtempSync(join(tmpdir(), "troupe-user-"));
    const tokens = await writeWordTokenizer(join(path, "tokenizer"), vocabularyTexts());
    const user = new UserFolder(path, tokens.length);
    user.write("data.jsonl", toJsonl(generateDataset({ rows: 120, seed: 1 })));
    await user.saveModel("model", tokens.length);
    user.write("config.yaml", CONFIG);
    return user;
  }

  /** A language model of `vocabularySize` tokens, with the tokenizer. */
  async saveModel(name: string, vocabularySize: number): Promise<void> {
    const ids = { bosTokenId: 0, eosTokenId: 0, padTokenId: 1 };
    const shape = { layers: 1, hidden: 16, heads: 2, contextTokens: 48 };
    const spec = freshGpt2Spec({ head: "lm", ...shape, vocabularySize, ...ids });
    await saveModelDir(join(this.path, name), spec, initParams(spec, 1), {
      tokenizerDir: join(this.path, "tokenizer"),
    });
  }

  /** Writes a file; its absolute path. */
  write(name: string, content: string | Uint8Array): string {
    const path = join(this.path, name);
    mkdirSync(join(path, ".."), { recursive: true });
    writeFileSync(path, content);
    return path;
  }

  read(name: string): string {
    return readFileSync(join(this.path, name), "utf8");
  }

  /** A copy of the model folder, changed. */
  spoiltModel(name: string, spoil: (folder: string) => void): string {
    const folder = join(this.path, name);
    cpSync(join(this.path, "model"), folder, { recursive: true });
    spoil(folder);
    return folder;
  }

  /** A run directory nobody used yet. */
  runDir(): string {
    return join(this.path, `run-${this.#runs++}`);
  }

  /** `troupe run config.yaml` with these fields set. */
  run(sets: readonly string[], runDir: string = this.runDir()): Promise<Finished> {
    return this.troupe(["run", "config.yaml", "--run-dir", runDir, ...sets.flatMap((set) => ["--set", set])]);
  }

  /** @param input what the user types */
  troupe(args: readonly string[], input = ""): Promise<Finished> {
    return new Promise((resolve) => {
      const env = { ...process.env, TROUPE_SKIP_BUILD: "1" };
      const options = { cwd: this.path, env, timeout: 50_000, maxBuffer: 1 << 24 };
      const child = execFile(process.execPath, [troupeBin, ...args], options, (_error, stdout, stderr) => {
        resolve({ code: child.exitCode ?? -1, stdout, stderr });
      });
      child.stdin?.end(input);
    });
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** No workers: what is wrong with the inputs is found before any is needed. */
export const CONFIG = `
name: e2e
model:
  fresh: { layers: 1, hidden: 16, heads: 2, contextTokens: 48 }
  tokenizer: { type: path, path: tokenizer }
data: { path: data.jsonl, maxPromptTokens: 20, maxResponseTokens: 26 }
sft: { batchSize: 8 }
reward: { batchSize: 8 }
ppo: { iterations: 1, rolloutBatchSize: 8, minibatchSize: 8 }
generation: { maxNewTokens: 12 }
eval: { prompts: 4, samples: 1 }
cluster: { rollouts: 0, learners: 0 }
`;
