/** A generator's prefill: whole prompts into the cache, one token drawn from the last position. */
import { open as openDecode, type DecodeConfig } from "./decode.js";
import type { Side } from "./side.js";

export async function open(config: Omit<DecodeConfig, "responseTokens">): Promise<Side> {
  const side = await openDecode({ ...config, responseTokens: 1 });
  return {
    ...side,
    repeat: async () => {
      await side.repeat();
      return config.batch * config.promptTokens;
    },
  };
}
