/**
 * The made-up world of the quickstart: people write in about a product and ask for something; a shop answers. Small
 * enough for a model trained from nothing on a laptop, and rule-governed, so that the true quality of an answer is
 * known (gold.ts) while training only ever sees comparisons.
 */
export const NAMES = ["Anna", "Ben", "Carla", "David", "Emma", "Felix", "Greta", "Hugo"] as const;
export const COLOURS = ["red", "blue", "green", "black", "white", "yellow"] as const;
export const PRODUCTS = ["lamp", "chair", "phone", "kettle", "jacket", "watch", "camera", "table"] as const;
/** What people ask for; all take the article "a". */
export const REQUESTS = ["refund", "repair", "replacement", "discount", "receipt"] as const;
export const PROBLEMS = ["is broken", "came late", "looks wrong"] as const;
export const ASKS = ["I need a", "please send a"] as const;

export const GREETINGS = ["Hi", "Hello", "Dear"] as const;
export const POLITE_OPENINGS = ["sorry about", "thanks for asking about"] as const;
export const PLAIN_OPENINGS = ["we read about", "we know about"] as const;
/** `{}` is what is promised. */
export const PROMISES = ["We will send a {}.", "You will get a {}."] as const;
export const VAGUE_PROMISES = ["We will look into it.", "You will hear from us."] as const;
export const CLOSINGS = ["Kind regards.", "Best wishes."] as const;
/** Endings that stop in the middle of a sentence. */
export const LOOSE_ENDS = ["and then", "but for now"] as const;

export interface Situation {
  readonly name: string;
  /** Part of the prompt only; good answers need not repeat it. */
  readonly colour: string;
  readonly product: string;
  readonly request: string;
  readonly problem: string;
  readonly ask: string;
}

/** Every situation has one prompt; there are 8 · 6 · 8 · 5 · 3 · 2 = 11,520. */
export const SITUATION_COUNT =
  NAMES.length * COLOURS.length * PRODUCTS.length * REQUESTS.length * PROBLEMS.length * ASKS.length;

/** The situation of a number in [0, SITUATION_COUNT). */
export function situationAt(number: number): Situation {
  let rest = number;
  const take = <Item>(items: readonly Item[]): Item => {
    const item = items[rest % items.length];
    rest = Math.floor(rest / items.length);
    return item;
  };
  return {
    name: take(NAMES),
    colour: take(COLOURS),
    product: take(PRODUCTS),
    request: take(REQUESTS),
    problem: take(PROBLEMS),
    ask: take(ASKS),
  };
}

/** For example `From Anna: my blue lamp is broken, please send a refund. Reply:`; 16 tokens. An answer starts with a space. */
export function promptOf({ name, colour, product, request, problem, ask }: Situation): string {
  return `From ${name}: my ${colour} ${product} ${problem}, ${ask} ${request}. Reply:`;
}

const PROMPT_PATTERN = /From (\w+): my (\w+) (\w+) (.+?), (.+) (\w+)\. Reply:/;

/**
 * Reads a prompt back.
 * @throws {Error} when it is not a prompt of this world
 */
export function parsePrompt(prompt: string): Situation {
  const match = PROMPT_PATTERN.exec(prompt);
  if (match === null) {
    throw new Error(
      `not a quickstart prompt: ${JSON.stringify(prompt)}; expected "From NAME: my COLOUR PRODUCT …, … REQUEST. Reply:"`,
    );
  }
  const [, name, colour, product, problem, ask, request] = match;
  return { name, colour, product, problem, ask, request };
}
