/**
 * Writes the quickstart's preference data: `node dist/examples/quickstart/generate.js --rows 6000 --seed 1 --out FILE`
 * (`.gz` compresses), and with `--tokenizer DIR` the tokenizer of this world. The same rows and seed give the same text.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { writeWordTokenizer } from "../../src/data/tokenizer-files.js";
import { permutationOf, streamOf, uniformAt, type Stream } from "../../src/shared/rng.js";
import { goldScore } from "./gold.js";
import * as world from "./world.js";
import type { Situation } from "./world.js";

export interface QuickstartRow {
  readonly prompt: string;
  readonly chosen: string;
  readonly rejected: string;
}

export interface GenerateOptions {
  readonly rows: number;
  readonly seed: number;
  /** Share of pairs whose labels are swapped. @default 0.02 */
  readonly labelNoise?: number;
}

/** Smallest difference in gold between the two answers of a pair; closer ones are drawn again. */
export const MIN_MARGIN = 0.2;

/** Draws in sequence from one stream. */
class Dice {
  #index = 0;
  constructor(
    readonly seed: number,
    readonly stream: Stream,
  ) {}
  chance(probability: number): boolean {
    return uniformAt(this.seed, this.stream, this.#index++) < probability;
  }
  pick<Item>(items: readonly Item[]): Item {
    return items[Math.floor(uniformAt(this.seed, this.stream, this.#index++) * items.length)];
  }
  pickOther<Item>(items: readonly Item[], not: Item): Item {
    return this.pick(items.filter((item) => item !== not));
  }
}

/**
 * How a missed criterion is missed: mostly by leaving the thing out, seldom by naming a wrong one. Seldom enough that a
 * reward model can be right nine times out of ten without ever comparing an answer with its prompt: the gap that a
 * policy may learn to exploit, and that the gold score shows.
 */
const WRONG_INSTEAD_OF_MISSING = 0.05;
/** An answer breaks off in the middle of a sentence this often when it does not end well. */
const BREAKS_OFF = 0.3;
/** A sentence comes twice. */
const REPEATS = 0.12;

/** One answer; every criterion of the gold score is met or missed on its own, half of the time. */
export function drawAnswer(situation: Situation, dice: Dice): string {
  const isMet = (): boolean => dice.chance(0.5);
  const isWrong = (): boolean => dice.chance(WRONG_INSTEAD_OF_MISSING);

  const addressee = isMet()
    ? situation.name
    : isWrong()
      ? dice.pickOther<string>(world.NAMES, situation.name)
      : "there";
  const opening = dice.pick(isMet() ? world.POLITE_OPENINGS : world.PLAIN_OPENINGS);
  const subject = isMet()
    ? `your ${situation.product}`
    : isWrong()
      ? `your ${dice.pickOther<string>(world.PRODUCTS, situation.product)}`
      : "this";
  const promise = (request: string): string => dice.pick(world.PROMISES).replace("{}", request);
  const body = isMet()
    ? promise(situation.request)
    : isWrong()
      ? promise(dice.pickOther<string>(world.REQUESTS, situation.request))
      : dice.pick(world.VAGUE_PROMISES);
  const repeated = dice.chance(REPEATS) ? ` ${body}` : "";
  const ending = isMet()
    ? ` ${dice.pick(world.CLOSINGS)}`
    : dice.chance(BREAKS_OFF)
      ? ` ${dice.pick(world.LOOSE_ENDS)}`
      : "";
  return ` ${dice.pick(world.GREETINGS)} ${addressee}, ${opening} ${subject}. ${body}${repeated}${ending}`;
}

/**
 * Preference pairs: two answers from the same distribution, at least MIN_MARGIN apart in gold, the better one chosen;
 * `labelNoise` of the pairs are swapped, which caps the accuracy any reward model can reach at 1 − labelNoise. Prompts
 * do not repeat before all situations have been used once.
 */
export function generateDataset({ rows, seed, labelNoise = 0.02 }: GenerateOptions): QuickstartRow[] {
  const situations = permutationOf(world.SITUATION_COUNT, seed, streamOf("quickstart/situations"));
  return Array.from({ length: rows }, (_, row): QuickstartRow => {
    const situation = world.situationAt(situations[row % situations.length]);
    const prompt = world.promptOf(situation);
    const dice = new Dice(seed, streamOf(`quickstart/row/${row}`));
    for (;;) {
      const [first, second] = [drawAnswer(situation, dice), drawAnswer(situation, dice)];
      const margin = goldScore(prompt, first) - goldScore(prompt, second);
      if (Math.abs(margin) < MIN_MARGIN - 1e-9) continue;
      const isFirstChosen = margin > 0 !== dice.chance(labelNoise);
      return isFirstChosen
        ? { prompt, chosen: first, rejected: second }
        : { prompt, chosen: second, rejected: first };
    }
  });
}

export function toJsonl(rows: readonly QuickstartRow[]): string {
  return rows.map((row) => JSON.stringify(row) + "\n").join("");
}

/** Every text of this world, for its vocabulary; words that open an answer carry a space like all others. */
export function vocabularyTexts(): string[] {
  const prompts = Array.from({ length: world.SITUATION_COUNT }, (_, i) =>
    world.promptOf(world.situationAt(i)),
  );
  const phrases = [
    ...world.GREETINGS,
    "there, this your",
    ...world.POLITE_OPENINGS,
    ...world.PLAIN_OPENINGS,
    ...world.PROMISES.flatMap((promise) => world.REQUESTS.map((request) => promise.replace("{}", request))),
    ...world.VAGUE_PROMISES,
    ...world.CLOSINGS,
    ...world.LOOSE_ENDS,
  ];
  return [...prompts, ...phrases.map((phrase) => ` ${phrase}`)];
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rows: { type: "string", default: "6000" },
      seed: { type: "string", default: "1" },
      out: { type: "string" },
      tokenizer: { type: "string" },
    },
  });
  const [rows, seed] = [Number(values.rows), Number(values.seed)];
  const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0;
  if (!isCount(rows) || !isCount(seed) || rows === 0 || (values.out ?? values.tokenizer) === undefined) {
    console.error(
      "usage: generate.js [--rows N] [--seed N] --out FILE [--tokenizer DIR]   (N: whole numbers, rows at least 1)",
    );
    process.exitCode = 2;
    return;
  }
  if (values.tokenizer !== undefined) {
    const tokens = await writeWordTokenizer(values.tokenizer, vocabularyTexts());
    console.log(`wrote a tokenizer of ${tokens.length} tokens to ${values.tokenizer}`);
  }
  if (values.out === undefined) return;
  const text = toJsonl(generateDataset({ rows, seed }));
  mkdirSync(dirname(values.out), { recursive: true });
  writeFileSync(values.out, values.out.endsWith(".gz") ? gzipSync(text, { level: 9 }) : text);
  console.log(`wrote ${rows} rows to ${values.out}`);
}

if (argv[1] === fileURLToPath(import.meta.url)) await main();
