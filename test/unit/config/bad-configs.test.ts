import { describe, expect, it } from "vitest";
import { parseConfig, type ConfigSources } from "../../../src/config/load.js";
import { TroupeError } from "../../../src/shared/errors.js";

const DATA = "data: {path: rows.jsonl}\n";

function messageOf(sources: ConfigSources): string {
  try {
    parseConfig({ file: "my.yaml", ...sources });
  } catch (error) {
    expect(error).toBeInstanceOf(TroupeError);
    expect((error as TroupeError).code).toBe("CONFIG");
    return (error as TroupeError).message;
  }
  throw new Error("the config was accepted");
}

/** What is wrong, the YAML under a valid `data:` line, and what the message must say. */
const FIELD_FAULTS: readonly (readonly [string, string, ...string[]])[] = [
  ["unknown key at the top", "sead: 3", "my.yaml:2:1", "unknown key sead; did you mean seed?"],
  [
    "unknown key in a section",
    "ppo: {gama: 1}",
    "my.yaml:2:7",
    "unknown key ppo.gama; did you mean ppo.gamma?",
  ],
  ["snake_case key", "ppo: {rollout_batch_size: 8}", "did you mean ppo.rolloutBatchSize?"],
  ["kebab-case key", "ppo: {clip-range: 0.2}", "did you mean ppo.cliprange?"],
  ["another trainer's name", "ppo: {init_kl_coef: 0.1}", "did you mean ppo.klController.initCoef?"],
  ["another trainer's name for a nested field", "sft: {lr: 0.1}", "did you mean sft.optimizer.learningRate?"],
  [
    "section at the wrong level",
    "optimizer: {beta1: 0.9}",
    "unknown key optimizer; did you mean sft.optimizer?",
  ],
  [
    "field of another section",
    "temperature: 1",
    "unknown key temperature; did you mean generation.temperature?",
  ],
  ["key like nothing else", "xyzzy: 1", "unknown key xyzzy\n"],
  ["unknown key two levels down", "model: {fresh: {layer: 2}}", "did you mean model.fresh.layers?"],
  [
    "text for a number",
    "seed: many",
    "seed: expected a whole number from 0 to 4294967295",
    'got the text "many"',
  ],
  ["fraction for a whole number", "seed: 1.5", "expected a whole number", "got 1.5"],
  ["negative seed", "seed: -1", "got -1"],
  ["seed beyond 32 bits", "seed: 4294967296", "from 0 to 4294967295, got 4294967296"],
  ["NaN", "ppo: {lam: .nan}", "ppo.lam: expected a number from 0 to 1, got NaN"],
  ["infinity", "ppo: {cliprange: .inf}", "ppo.cliprange: expected a number above 0, got Infinity"],
  ["share above 1", "ppo: {lam: 1.5}", "my.yaml:2:7", "ppo.lam: expected a number from 0 to 1, got 1.5"],
  ["share below 0", "ppo: {gamma: -0.1}", "ppo.gamma: expected a number from 0 to 1, got -0.1"],
  ["zero clip range", "ppo: {cliprange: 0}", "expected a number above 0, got 0"],
  ["zero iterations", "ppo: {iterations: 0}", "ppo.iterations: expected a whole number of at least 1, got 0"],
  ["beta of exactly 1", "ppo: {actor: {beta2: 1}}", "ppo.actor.beta2", "below 1, got 1"],
  [
    "negative learning rate",
    "sft: {optimizer: {learningRate: -1}}",
    "sft.optimizer.learningRate: expected a number above 0, got -1",
  ],
  [
    "zero temperature",
    "generation: {temperature: 0}",
    "generation.temperature: expected a number above 0, got 0",
  ],
  ["top-p above 1", "generation: {topP: 1.1}", "generation.topP", "got 1.1"],
  [
    "too many slots",
    "generation: {slots: 65}",
    "generation.slots: expected a whole number from 1 to 64, got 65",
  ],
  [
    "port out of range",
    "cluster: {port: 70000}",
    "cluster.port: expected a whole number from 0 to 65535, got 70000",
  ],
  [
    "time limit beyond a timer",
    "cluster: {taskTimeoutMs: 9999999999}",
    "cluster.taskTimeoutMs",
    "2147483647",
  ],
  ["yes for a boolean", "ppo: {whitenAdvantages: yes}", "expected true or false", 'got the text "yes"'],
  ["number for a boolean", "ppo: {eosGap: 1}", "ppo.eosGap: expected true or false, got 1"],
  [
    "unknown choice",
    "engine: {name: torch}",
    "engine.name: expected one of auto, onnx, tensorflow, reference",
    '"torch"',
  ],
  ["unknown preset", "preset: deepspeed", "preset: expected one of default, deepspeed-chat"],
  [
    "unknown schedule",
    "ppo: {critic: {schedule: step}}",
    "ppo.critic.schedule: expected one of cosine, linear, constant",
  ],
  ["unknown stage", "stages: [sft, dpo]", "stages.1: expected one of sft, reward, ppo", '"dpo"'],
  ["no stage", "stages: []", "stages: expected a list of at least 1 item", "got an empty list"],
  ["stages as text", "stages: ppo", "stages: expected a list"],
  ["name with a space", "name: my run", "name: expected text that matches", '"my run"'],
  ["number for a section", "ppo: 3", "ppo: expected a mapping", "got 3"],
  ["list for a section", "ppo: [1]", "ppo: expected a mapping", "got a list of 1"],
  ["mapping for a number", "seed: {a: 1}", "seed: expected a whole number", "got a mapping with a"],
  ["null for a number", "seed: null", "seed: expected a whole number", "got null"],
  ["empty path", "model: {path: ''}", "model.path: expected text that is not empty or null"],
  [
    "two shares instead of three",
    "data: {path: x, split: [1, 2]}",
    "data.split: expected a list of 3 items",
    "got a list of 2",
  ],
  [
    "negative share",
    "data: {path: x, split: [1, -2, 3]}",
    "data.split.1: expected a number of at least 0, got -2",
  ],
  [
    "held-out share above a half",
    "data: {path: x, evalFraction: 0.6}",
    "data.evalFraction: expected a number from 0 to 0.5, got 0.6",
  ],
  [
    "template without a prompt",
    "data: {path: x, promptTemplate: 'Q:'}",
    "data.promptTemplate: expected text that contains {prompt}",
  ],
  [
    "unknown union branch",
    "ppo: {klController: {type: magic}}",
    "ppo.klController.type: expected one of fixed, adaptive",
    '"magic"',
  ],
  [
    "field of another branch",
    "ppo: {klController: {type: fixed, target: 6}}",
    "unknown key ppo.klController.target for type fixed; it belongs to type adaptive",
  ],
  [
    "branch without its field",
    "model: {tokenizer: {type: path}}",
    "model.tokenizer.path: expected text that is not empty, got nothing",
  ],
  [
    "tiny vocabulary",
    "model: {tokenizer: {type: train, vocabularySize: 200}}",
    "from 260 to 1000000, got 200",
  ],
  [
    "text for an optional section",
    "ppo: {ema: on}",
    "ppo.ema: expected a mapping with keys of decay or null",
  ],
];

/** Values that are fine alone; the message must show the arithmetic. */
const CONTRADICTIONS: readonly (readonly [string, string, ...string[]])[] = [
  [
    "minibatch that does not divide",
    "ppo: {rolloutBatchSize: 60, minibatchSize: 40}",
    "ppo.minibatchSize 40 must divide",
    "rolloutBatchSize 60 × samplesPerPrompt 1 × generationBatches 1 = 60",
    "60 ÷ 40 = 1.5; 30 would",
  ],
  [
    "minibatch against all three factors",
    "ppo: {rolloutBatchSize: 10, samplesPerPrompt: 2, generationBatches: 3, minibatchSize: 64}",
    "10 × samplesPerPrompt 2 × generationBatches 3 = 60",
  ],
  [
    "minibatch that micro-shards do not split",
    "ppo: {minibatchSize: 4}",
    "ppo.minibatchSize 4 does not split into cluster.microShards 8: 4 ÷ 8 = 0.5",
  ],
  [
    "sft batch that micro-shards do not split",
    "sft: {batchSize: 20}",
    "sft.batchSize 20 does not split into cluster.microShards 8: 20 ÷ 8 = 2.5",
  ],
  [
    "reward batch that micro-shards do not split",
    "reward: {batchSize: 12}",
    "reward.batchSize 12 does not split",
  ],
  [
    "micro-shards not a power of two",
    "cluster: {microShards: 6}\nsft: {batchSize: 6}\nreward: {batchSize: 6}",
    "cluster.microShards must be a power of two",
    "got 6",
  ],
  [
    "stale experience for learners that average parameters",
    "ppo: {staleness: 2}\ncluster: {sync: parameters}",
    "ppo.staleness 2 needs cluster.sync gradients, got parameters",
    "set ppo.staleness: 0, or cluster.sync: gradients",
  ],
  [
    "width that heads do not divide",
    "model: {fresh: {hidden: 100, heads: 3}}",
    "model.fresh.hidden 100 must be divisible by heads 3: 100 ÷ 3 = 33.333",
  ],
  [
    "answer that does not fit",
    "generation: {maxNewTokens: 100}",
    "data.maxPromptTokens 64 + generation.maxNewTokens 100 = 164 tokens do not fit model.fresh.contextTokens 128",
  ],
  [
    "training row that does not fit",
    "data: {path: x, maxResponseTokens: 65}",
    "data.maxPromptTokens 64 + data.maxResponseTokens 65 = 129 tokens do not fit",
  ],
  ["top-k in ppo", "generation: {topK: 50}", "generation.topK must be off (0) for ppo, got 50"],
  ["top-p in ppo", "generation: {topP: 0.9}", "generation.topP must be off (1) for ppo, got 0.9"],
  [
    "repetition penalty in ppo",
    "generation: {repetitionPenalty: 1.2}",
    "generation.repetitionPenalty must be off (1) for ppo, got 1.2",
  ],
  [
    "min new tokens in ppo",
    "generation: {minNewTokens: 4}",
    "generation.minNewTokens must be off (0) for ppo, got 4",
  ],
  [
    "lease shorter than 4 heartbeats",
    "cluster: {leaseTtlMs: 3000}",
    "cluster.leaseTtlMs 3000 must be at least 4 heartbeats: 4 × heartbeatIntervalMs 1000 = 4000",
  ],
  [
    "task limit below the lease",
    "cluster: {taskTimeoutMs: 5000}",
    "cluster.taskTimeoutMs 5000 must be longer than leaseTtlMs 10000",
  ],
  [
    "step limit equal to the lease",
    "cluster: {stepTimeoutMs: 10000}",
    "cluster.stepTimeoutMs 10000 must be longer than leaseTtlMs 10000",
  ],
  [
    "open address without a token",
    "cluster: {host: 0.0.0.0, insecure: true}",
    "my.yaml:2:11",
    "cluster.tokenFile is needed",
  ],
  [
    "open address without consent",
    "cluster: {host: '::', tokenFile: token}",
    "the traffic is not encrypted: set cluster.insecure: true",
  ],
  [
    "nats elsewhere without a login",
    'cluster: {insecure: true, durable: {type: nats, servers: ["127.0.0.1:4222", "nats-2:4222"]}}',
    "cluster.durable.servers nats-2:4222 is on another machine, so cluster.durable.tokenFile is needed",
  ],
  [
    "nats elsewhere without encryption",
    'cluster: {durable: {type: nats, servers: ["nats://10.0.0.5:4222"], tokenFile: login}}',
    "the traffic is not encrypted: set cluster.durable.caFile",
  ],
  [
    "one port for two servers",
    "cluster: {port: 5000, httpPort: 5000}",
    "cluster.port and cluster.httpPort are both 5000",
  ],
  ["stages out of order", "stages: [reward, sft]", "got [reward, sft], write [sft, reward]"],
  ["a stage twice", "stages: [sft, sft]", "write [sft]"],
  [
    "a stage without rows",
    "data: {path: x, split: [2, 0, 4]}",
    "stage reward runs but its share of the rows is 0 of 6",
  ],
  [
    "tokenizer of a model that is not there",
    "model: {tokenizer: {type: from-model}}",
    "model.tokenizer is from-model but model.path is null",
  ],
  [
    "provider of another engine",
    "engine: {name: tensorflow, provider: webgpu}",
    "engine.provider webgpu is an option of the onnx engine, but engine.name is tensorflow",
  ],
  [
    "prompt twice in the template",
    "data: {path: x, promptTemplate: '{prompt}{prompt}'}",
    "data.promptTemplate holds {prompt} 2 times",
  ],
];

/** Texts that are refused before any field is looked at. */
const YAML_FAULTS: readonly (readonly [string, string, ...string[]])[] = [
  ["duplicate key", "seed: 1\nseed: 2", "my.yaml:2:1", "Map keys must be unique"],
  ["duplicate key in a section", "ppo: {lam: 1, lam: 0.9}", "my.yaml:1:15", "Map keys must be unique"],
  ["key into the prototype", "__proto__: {polluted: 1}", "my.yaml:1:1: the key __proto__ is not allowed"],
  ["constructor key deep inside", "ppo: {actor: {constructor: 1}}", "the key constructor is not allowed"],
  ["key that is a list", "? [a]\n: 1", "a key must be text"],
  ["key that is a number", "1: 2", "a key must be text, got 1"],
  ["tag", "name: !!js/function 'x'", "my.yaml:1:7", "Unresolved tag"],
  ["tab indentation", "ppo:\n\tlam: 1", "Tabs are not allowed as indentation"],
  ["second document", "seed: 1\n---\nseed: 2", "my.yaml:2:1: a second YAML document"],
  ["list at the top", "- seed", "expected a mapping"],
  ["plain text", "hello", "expected a mapping"],
  ["unclosed bracket", "ppo: {lam: 1", "not valid YAML"],
  ["unknown alias", "seed: *x", "my.yaml"],
  ["deep nesting", "[".repeat(5000), "nested deeper than 32 levels"],
  [
    "deep indentation",
    Array.from({ length: 40 }, (_, i) => `${" ".repeat(i)}a:`).join("\n"),
    "nested deeper than 32 levels",
  ],
  [
    "aliases that explode",
    [
      "a: &a [x, x, x, x, x, x, x, x, x]",
      ...["b", "c", "d", "e"].map(
        (key, i) => `${key}: &${key} [${Array(9).fill(`*${"abcd"[i]}`).join(", ")}]`,
      ),
    ].join("\n"),
    "aliases that expand too far",
  ],
];

describe("bad configs", () => {
  it.each(FIELD_FAULTS.map(([fault, yaml, ...expected]) => ({ fault, yaml, expected })))(
    "$fault",
    ({ yaml, expected }) => {
      const message = messageOf({ text: yaml.startsWith("data:") ? yaml : DATA + yaml });
      for (const part of expected) expect(`${message}\n`).toContain(part);
      expect(message.split("\n")[0]).toBe("1 problem in the configuration (my.yaml):");
    },
  );

  it.each(CONTRADICTIONS.map(([fault, yaml, ...expected]) => ({ fault, yaml, expected })))(
    "$fault",
    ({ yaml, expected }) => {
      const message = messageOf({ text: yaml.startsWith("data:") ? yaml : DATA + yaml });
      for (const part of expected) expect(message).toContain(part);
    },
  );

  it.each(YAML_FAULTS.map(([fault, yaml, ...expected]) => ({ fault, yaml, expected })))(
    "$fault",
    ({ yaml, expected }) => {
      const message = messageOf({ text: yaml });
      for (const part of expected) expect(message).toContain(part);
      expect(message).not.toContain("data.path"); // what the file says is unknown, so nothing is "missing"
    },
  );

  it("has a row for well over sixty faults", () => {
    expect(FIELD_FAULTS.length + CONTRADICTIONS.length + YAML_FAULTS.length).toBeGreaterThanOrEqual(60);
  });

  it.each([
    ["no equals sign", { sets: ["ppo.lam"] }, ["--set ppo.lam: expected a.b=value"]],
    [
      "unknown path",
      { sets: ["ppo.lamb=1"] },
      ["--set ppo.lamb=1: unknown key ppo.lamb; did you mean ppo.lam?"],
    ],
    [
      "field below a number",
      { sets: ["seed.x=1"] },
      ["seed is a whole number from 0 to 4294967295; it has no fields of its own"],
    ],
    ["prototype path", { sets: ["__proto__.polluted=1"] }, ["__proto__ is not allowed in a field's path"]],
    ["empty segment", { sets: ["ppo..lam=1"] }, ["an empty name is not allowed"]],
    [
      "value out of range",
      { sets: ["ppo.lam=2"] },
      ["--set ppo.lam=2: ppo.lam: expected a number from 0 to 1, got 2"],
    ],
    ["value that is not YAML", { sets: ["stages=[sft"] }, ["the value is not valid YAML"]],
    ["alias in a value", { sets: ["seed=*x"] }, ["--set seed=*x: the value is not valid YAML"]],
    [
      "unknown variable",
      { env: { TROUPE__PPO__LAMB: "1" } },
      ["environment TROUPE__PPO__LAMB: unknown key ppo.LAMB; did you mean ppo.lam?"],
    ],
    [
      "variable out of range",
      { env: { TROUPE__SEED: "-4" } },
      ["environment TROUPE__SEED: seed: expected", "got -4"],
    ],
    [
      "flag out of range",
      { flags: { "cluster.rollouts": -1 } },
      ["command line: cluster.rollouts: expected", "got -1"],
    ],
  ])("outside the file: %s", (_, sources, expected) => {
    const message = messageOf({ text: DATA, ...sources });
    for (const part of expected) expect(message).toContain(part);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });

  it("lists every problem at once, contradictions among the sound fields included", () => {
    const text = "seed: x\nppo:\n  lam: 2\n  foo: 1\nmodel:\n  fresh: {hidden: 100, heads: 3}\n";
    const message = messageOf({ text, sets: ["ppo.gama=1"], env: { TROUPE__NAME: "a b" } });
    expect(message).toContain("7 problems");
    for (const part of ["seed", "ppo.lam", "ppo.foo", "ppo.gama", "name", "data.path", "100 ÷ 3"])
      expect(message).toContain(part);
  });

  it("does not build contradictions on a field that is wrong in itself", () => {
    const message = messageOf({ text: `${DATA}ppo: {minibatchSize: -7}` });
    expect(message).toContain("1 problem");
  });
});
