/** Thread entry: trains a tokenizer on a run's own texts. Seconds of pure computing, so never on a control-plane loop. */
import { trainBpe, WordCounts } from "./bpe-trainer.js";
import { PromptTemplate } from "./prompt-template.js";
import { readRows, type DataConfig } from "./rows.js";
import { writeBpeTokenizer } from "./tokenizer-files.js";

export interface TrainTask {
  readonly data: DataConfig;
  readonly vocabularySize: number;
  readonly directory: string;
}

export interface TrainedTokenizer {
  /** Tokens in the vocabulary; fewer than asked for when the texts hold no more repeated pairs. */
  readonly vocabSize: number;
  readonly rows: number;
}

export async function train({ data, vocabularySize, directory }: TrainTask): Promise<TrainedTokenizer> {
  const template = new PromptTemplate(data.promptTemplate);
  const { textRows, chatRows } = await readRows(data);
  const words = new WordCounts();
  for (const row of textRows) {
    words.add(template.render(row.prompt));
    words.add(row.chosen ?? "");
    words.add(row.rejected ?? "");
  }
  for (const row of chatRows) {
    for (const { content } of [...row.prompt, ...(row.chosen ?? []), ...(row.rejected ?? [])])
      words.add(content);
  }
  const vocabulary = trainBpe(words.counts, { vocabularySize });
  await writeBpeTokenizer(directory, vocabulary);
  return { vocabSize: vocabulary.tokens.length, rows: textRows.length + chatRows.length };
}
