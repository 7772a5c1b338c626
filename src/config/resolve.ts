/**
 * What follows from a valid config: sizes derived by exact division, contradictions between fields (with their
 * arithmetic), and settings that work but waste something.
 */
import { firstElsewhere, isLoopback } from "../shared/loopback.js";
import type { Config } from "./schema.js";

/** Numbers that follow from the config; all exact. One iteration = `generationBatches` collections, then training. */
export interface DerivedSizes {
  /** Experiences asked for at a time: rolloutBatchSize × samplesPerPrompt. */
  readonly experiencesPerCollection: number;
  /** Experiences stored when training starts: the former × generationBatches. */
  readonly experiencesPerIteration: number;
  readonly minibatchesPerEpoch: number;
  readonly optimizerStepsPerIteration: number;
  /** Of the whole ppo stage, unless the KL budget ends it early. */
  readonly optimizerSteps: number;
  readonly experiencesPerMicroShard: number;
  readonly tasksPerCollection: number;
  /** Longest prompt plus longest sampled answer. */
  readonly sequenceTokens: number;
}

export interface Contradiction {
  /** Every field it involves, dotted; the first is the one to look at. */
  readonly paths: readonly [string, ...string[]];
  readonly message: string;
}

export interface Resolution {
  readonly derived: DerivedSizes;
  readonly contradictions: readonly Contradiction[];
  readonly warnings: readonly string[];
}

const isPowerOfTwo = (n: number): boolean => n >= 1 && 2 ** Math.round(Math.log2(n)) === n;

/** Largest divisor of `total` that is at most `wanted`: what the user could write instead. */
function nearestDivisor(total: number, wanted: number): number {
  for (let candidate = Math.min(wanted, total); candidate > 1; candidate--)
    if (total % candidate === 0) return candidate;
  return 1;
}

export function resolveConfig(config: Config): Resolution {
  const contradictions: Contradiction[] = [];
  const contradict = (paths: Contradiction["paths"], message: string) =>
    contradictions.push({ paths, message });
  const derived = derive(config);
  checkStages(config, contradict);
  checkPromptTemplate(config, contradict);
  checkBatches(config, derived, contradict);
  checkModel(config, contradict);
  if (config.stages.includes("ppo")) {
    checkSampling(config, contradict);
    checkStaleness(config, contradict);
  }
  checkTimes(config, contradict);
  checkListening(config, contradict);
  checkEngine(config, contradict);
  checkDropout(config, contradict);
  return { derived, contradictions, warnings: findWaste(config, derived) };
}

type Contradict = (paths: Contradiction["paths"], message: string) => void;

function derive({ ppo, cluster, generation, data }: Config): DerivedSizes {
  const experiencesPerCollection = ppo.rolloutBatchSize * ppo.samplesPerPrompt;
  const experiencesPerIteration = experiencesPerCollection * ppo.generationBatches;
  const minibatchesPerEpoch = Math.floor(experiencesPerIteration / ppo.minibatchSize);
  const optimizerStepsPerIteration = minibatchesPerEpoch * ppo.ppoEpochs;
  return {
    experiencesPerCollection,
    experiencesPerIteration,
    minibatchesPerEpoch,
    optimizerStepsPerIteration,
    optimizerSteps: optimizerStepsPerIteration * ppo.iterations,
    experiencesPerMicroShard: Math.floor(ppo.minibatchSize / cluster.microShards),
    tasksPerCollection: Math.ceil(experiencesPerCollection / cluster.promptsPerTask),
    sequenceTokens: data.maxPromptTokens + generation.maxNewTokens,
  };
}

const STAGE_ORDER = ["sft", "reward", "ppo"] as const;

function checkStages({ stages, data, model }: Config, contradict: Contradict): void {
  const ordered = STAGE_ORDER.filter((stage) => stages.includes(stage));
  if (ordered.join() !== stages.join()) {
    contradict(
      ["stages"],
      `stages run once each, in the order sft, reward, ppo; got [${stages.join(", ")}], write [${ordered.join(", ")}]`,
    );
  }
  const total = data.split.reduce((sum, share) => sum + share, 0);
  for (const stage of ordered) {
    if (data.split[STAGE_ORDER.indexOf(stage)] === 0) {
      contradict(
        ["data.split", "stages"],
        `stage ${stage} runs but its share of the rows is 0 of ${total} (data.split is [${data.split.join(", ")}] for sft, reward, ppo)`,
      );
    }
  }
  if (model.path === null && model.tokenizer.type === "from-model") {
    contradict(
      ["model.tokenizer", "model.path"],
      "model.tokenizer is from-model but model.path is null: there is no model to take a tokenizer from; use {type: train} or {type: path, path: DIR}",
    );
  }
}

function checkPromptTemplate({ data }: Config, contradict: Contradict): void {
  const count = data.promptTemplate.split("{prompt}").length - 1;
  if (count > 1)
    contradict(["data.promptTemplate"], `data.promptTemplate holds {prompt} ${count} times; expected once`);
}

function checkBatches(
  { stages, ppo, sft, reward, cluster }: Config,
  derived: DerivedSizes,
  contradict: Contradict,
): void {
  const shards = cluster.microShards;
  if (!isPowerOfTwo(shards)) {
    contradict(
      ["cluster.microShards"],
      `cluster.microShards must be a power of two (1, 2, 4, 8, ...), got ${shards}`,
    );
  }
  const mustSplit = (path: string, size: number) => {
    if (size % shards === 0) return;
    contradict(
      [path, "cluster.microShards"],
      `${path} ${size} does not split into cluster.microShards ${shards}: ${size} ÷ ${shards} = ${round(size / shards)}; use a multiple of ${shards}`,
    );
  };
  if (stages.includes("sft")) mustSplit("sft.batchSize", sft.batchSize);
  if (stages.includes("reward") && reward.path === null) mustSplit("reward.batchSize", reward.batchSize);
  if (!stages.includes("ppo")) return;
  mustSplit("ppo.minibatchSize", ppo.minibatchSize);
  const total = derived.experiencesPerIteration;
  if (total % ppo.minibatchSize !== 0) {
    const product = `rolloutBatchSize ${ppo.rolloutBatchSize} × samplesPerPrompt ${ppo.samplesPerPrompt} × generationBatches ${ppo.generationBatches} = ${total}`;
    contradict(
      ["ppo.minibatchSize", "ppo.rolloutBatchSize", "ppo.samplesPerPrompt", "ppo.generationBatches"],
      `ppo.minibatchSize ${ppo.minibatchSize} must divide ${product}: ${total} ÷ ${ppo.minibatchSize} = ${round(total / ppo.minibatchSize)}; ${nearestDivisor(total, ppo.minibatchSize)} would`,
    );
  }
}

function checkModel({ stages, model, data, generation }: Config, contradict: Contradict): void {
  if (model.path !== null) return; // the shape is in the model's own config.json
  const { hidden, heads, contextTokens } = model.fresh;
  if (hidden % heads !== 0) {
    contradict(
      ["model.fresh.hidden", "model.fresh.heads"],
      `model.fresh.hidden ${hidden} must be divisible by heads ${heads}: ${hidden} ÷ ${heads} = ${round(hidden / heads)}`,
    );
  }
  const mustFit = (paths: [string, number], answer: [string, number]) => {
    const total = paths[1] + answer[1];
    if (total <= contextTokens) return;
    contradict(
      ["model.fresh.contextTokens", paths[0], answer[0]],
      `${paths[0]} ${paths[1]} + ${answer[0]} ${answer[1]} = ${total} tokens do not fit model.fresh.contextTokens ${contextTokens}`,
    );
  };
  const prompt: [string, number] = ["data.maxPromptTokens", data.maxPromptTokens];
  if (stages.includes("ppo")) mustFit(prompt, ["generation.maxNewTokens", generation.maxNewTokens]);
  if (stages.some((stage) => stage !== "ppo"))
    mustFit(prompt, ["data.maxResponseTokens", data.maxResponseTokens]);
}

function checkSampling({ generation }: Config, contradict: Contradict): void {
  const off = { topK: 0, topP: 1, minNewTokens: 0, repetitionPenalty: 1 } as const;
  for (const [key, neutral] of Object.entries(off) as [keyof typeof off, number][]) {
    if (generation[key] === neutral) continue;
    contradict(
      [`generation.${key}`, "stages"],
      `generation.${key} must be off (${neutral}) for ppo, got ${generation[key]}: cut or bent sampling makes the policy ratio compare two different distributions`,
    );
  }
}

function checkStaleness({ ppo, cluster }: Config, contradict: Contradict): void {
  if (ppo.staleness === 0 || cluster.sync === "gradients") return;
  contradict(
    ["ppo.staleness", "cluster.sync"],
    `ppo.staleness ${ppo.staleness} needs cluster.sync gradients, got ${cluster.sync}: the correction for stale experience is verified for learners that take every step together only; set ppo.staleness: 0, or cluster.sync: gradients`,
  );
}

function checkTimes({ cluster }: Config, contradict: Contradict): void {
  const { heartbeatIntervalMs: beat, leaseTtlMs: ttl } = cluster;
  if (ttl < 4 * beat) {
    contradict(
      ["cluster.leaseTtlMs", "cluster.heartbeatIntervalMs"],
      `cluster.leaseTtlMs ${ttl} must be at least 4 heartbeats: 4 × heartbeatIntervalMs ${beat} = ${4 * beat}`,
    );
  }
  for (const key of ["taskTimeoutMs", "stepTimeoutMs"] as const) {
    if (cluster[key] > ttl) continue;
    contradict(
      [`cluster.${key}`, "cluster.leaseTtlMs"],
      `cluster.${key} ${cluster[key]} must be longer than leaseTtlMs ${ttl}: a dead worker is noticed after its lease, a slow one later`,
    );
  }
}

function checkListening({ cluster }: Config, contradict: Contradict): void {
  if (!isLoopback(cluster.host)) {
    if (cluster.tokenFile === null) {
      contradict(
        ["cluster.tokenFile", "cluster.host"],
        `cluster.host ${cluster.host} is reachable from other machines, so cluster.tokenFile is needed (make one: openssl rand -hex 32 > token; chmod 600 token)`,
      );
    }
    if (!cluster.insecure && cluster.tls.cert === null) {
      contradict(
        ["cluster.insecure", "cluster.host"],
        `cluster.host ${cluster.host} is reachable from other machines and the traffic is not encrypted: set cluster.insecure: true on a network you trust, set cluster.tls (troupe certs init DIR --host NAME makes the files), or keep 127.0.0.1`,
      );
    }
  }
  checkTls(cluster.tls, contradict);
  checkDurable(cluster, contradict);
  if (cluster.port !== 0 && cluster.port === cluster.httpPort) {
    contradict(
      ["cluster.httpPort", "cluster.port"],
      `cluster.port and cluster.httpPort are both ${cluster.port}; they need two ports`,
    );
  }
}

/** The servers keep the run, experiences and weights included, and say who directs it. */
function checkDurable({ durable, insecure }: Config["cluster"], contradict: Contradict): void {
  if (durable.type !== "nats") return;
  const elsewhere = firstElsewhere(durable.servers);
  if (elsewhere === undefined) return;
  if (durable.tokenFile === null) {
    contradict(
      ["cluster.durable.tokenFile", "cluster.durable.servers"],
      `cluster.durable.servers ${elsewhere} is on another machine, so cluster.durable.tokenFile is needed: a file with the servers' token, or with USER PASSWORD (docs/high-availability.md)`,
    );
  }
  if (durable.caFile === null && !insecure) {
    contradict(
      ["cluster.durable.caFile", "cluster.durable.servers"],
      `cluster.durable.servers ${elsewhere} is on another machine and the traffic is not encrypted: set cluster.durable.caFile, the authority of the servers' certificates, or cluster.insecure: true on a network you trust`,
    );
  }
}

function checkEngine({ engine }: Config, contradict: Contradict): void {
  const isOnnx = engine.name === "onnx" || engine.name === "auto";
  if (!isOnnx && engine.provider !== "cpu") {
    contradict(
      ["engine.provider", "engine.name"],
      `engine.provider ${engine.provider} is an option of the onnx engine, but engine.name is ${engine.name}`,
    );
  }
  if (!isOnnx && engine.recompute !== "none") {
    contradict(
      ["engine.recompute", "engine.name"],
      `engine.recompute ${engine.recompute} needs the onnx engine, but engine.name is ${engine.name}`,
    );
  }
  if (engine.frozenWeights === "int8") {
    if (!isOnnx) {
      contradict(
        ["engine.frozenWeights", "engine.name"],
        `engine.frozenWeights int8 needs the onnx engine, but engine.name is ${engine.name}`,
      );
    }
    if (engine.provider !== "cpu") {
      contradict(
        ["engine.frozenWeights", "engine.provider"],
        `engine.frozenWeights int8 is computed on the CPU, but engine.provider is ${engine.provider}`,
      );
    }
  }
}

function checkDropout({ cluster, model }: Config, contradict: Contradict): void {
  if (model.lora !== null && model.lora.dropout > 0 && cluster.sync === "parameters") {
    contradict(
      ["model.lora.dropout", "cluster.sync"],
      `model.lora.dropout ${model.lora.dropout} needs cluster.sync gradients: what is dropped follows the step that all learners take together`,
    );
  }
}

function checkTls(tls: Config["cluster"]["tls"], contradict: Contradict): void {
  const together = (a: keyof typeof tls, b: keyof typeof tls) => {
    if ((tls[a] === null) === (tls[b] === null)) return;
    const [given, missing] = tls[a] === null ? [b, a] : [a, b];
    contradict(
      [`cluster.tls.${missing}`, `cluster.tls.${given}`],
      `cluster.tls.${given} is set and cluster.tls.${missing} is not: a certificate and its key belong together`,
    );
  };
  together("cert", "key");
  together("clientCert", "clientKey");
  for (const path of ["clientCa", "ca"] as const) {
    if (tls[path] === null || tls.cert !== null) continue;
    contradict(
      [`cluster.tls.${path}`, "cluster.tls.cert"],
      `cluster.tls.${path} is set but cluster.tls.cert is not: without it the coordinator does not speak TLS`,
    );
  }
}

function findWaste(
  { stages, cluster, engine, eval: evaluation, ppo }: Config,
  derived: DerivedSizes,
): string[] {
  const warnings: string[] = [];
  const hasPpo = stages.includes("ppo");
  if (cluster.learners > cluster.microShards) {
    const idle = cluster.learners - cluster.microShards;
    warnings.push(
      `cluster.learners ${cluster.learners} is more than cluster.microShards ${cluster.microShards}: ${idle} learner${idle === 1 ? "" : "s"} will be idle`,
    );
  }
  if (cluster.minLearners > cluster.learners) {
    warnings.push(
      `cluster.minLearners ${cluster.minLearners} is more than cluster.learners ${cluster.learners}: training waits until ${cluster.minLearners - cluster.learners} more join from elsewhere`,
    );
  }
  if (hasPpo && cluster.rollouts === 0)
    warnings.push("cluster.rollouts is 0: ppo waits until rollout workers join from elsewhere");
  if (hasPpo && cluster.rollouts > derived.tasksPerCollection) {
    const idle = cluster.rollouts - derived.tasksPerCollection;
    warnings.push(
      `a collection is ${derived.experiencesPerCollection} answers ÷ promptsPerTask ${cluster.promptsPerTask} = ${derived.tasksPerCollection} tasks: ${idle} of ${cluster.rollouts} rollout workers will be idle`,
    );
  }
  if (hasPpo && ppo.lossDenominator === "microbatch-tokens" && cluster.microShards > 1) {
    warnings.push(
      "ppo.lossDenominator microbatch-tokens weighs tokens by their micro-shard, as DeepSpeed-Chat does by device",
    );
  }
  if (hasPpo && ppo.staleness > 0 && ppo.importance === "none") {
    warnings.push(
      `ppo.importance none trains on experience up to ppo.staleness ${ppo.staleness} versions old as if it were fresh; \`decoupled\` corrects for it`,
    );
  }
  const steps = derived.optimizerSteps;
  for (const role of hasPpo ? (["actor", "critic"] as const) : []) {
    const { warmupSteps } = ppo[role];
    if (warmupSteps === 0 || warmupSteps < steps) continue;
    warnings.push(
      `ppo.${role}.warmupSteps ${warmupSteps} never ends: iterations ${ppo.iterations} × ppoEpochs ${ppo.ppoEpochs} × minibatches ${derived.minibatchesPerEpoch} = ${steps} optimizer steps`,
    );
  }
  if (engine.name === "reference")
    warnings.push("engine.name reference is plain JavaScript, for tests: expect it to be very slow");
  if (hasPpo && evaluation.samples > evaluation.prompts) {
    warnings.push(
      `eval.samples ${evaluation.samples} is more than eval.prompts ${evaluation.prompts}: only ${evaluation.prompts} answers can be shown`,
    );
  }
  return warnings;
}

const round = (value: number): number => Math.round(value * 1000) / 1000;
