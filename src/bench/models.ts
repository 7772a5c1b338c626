/** The models that benchmarks run, and what a row says when there is no peer. */
const SMALL = { layers: 4, hidden: 256, heads: 4, vocabulary: 4096, context: 256 };
const GPT2 = { layers: 12, hidden: 768, heads: 12, vocabulary: 50257, context: 1024 };

export const MODELS = { "L4 d256 h4 V4096": SMALL, "GPT-2 small": GPT2 } as const;
export type ModelName = keyof typeof MODELS;

export const NO_PEER = "set TROUPE_PEER_PYTHON to compare (bench/peers/requirements.txt)";
