import * as thread from "../../../src/data/tokenize-thread.js";
import type { Ragged } from "../../../src/data/tokenize-thread.js";
import type { TextTokenizer } from "../../../src/data/types.js";

function rowsOf({ ids, lengths }: Ragged): Int32Array[] {
  let start = 0;
  return Array.from(lengths, (length) => ids.slice(start, (start += length)));
}

/** The product's own tokenizer code, called in this thread: same ids as the pool, without a build. */
export async function inlineTokenizer(directory: string): Promise<TextTokenizer> {
  return {
    info: await thread.open({ directory }),
    encode: async (texts, options = {}) => rowsOf(await thread.encode({ directory, texts, ...options })),
    decode: (sequences, { skipSpecialTokens = true } = {}) =>
      thread.decode({
        directory,
        skipSpecialTokens,
        rows: {
          ids: Int32Array.from(sequences.flatMap((ids) => [...ids])),
          lengths: Int32Array.from(sequences, (ids) => ids.length),
        },
      }),
    stopTable: (stopStrings) => thread.stopTable({ directory, stopStrings }),
    applyChatTemplate: () => Promise.reject(new Error("rendering needs the pool")),
    close: () => Promise.resolve(),
  };
}
