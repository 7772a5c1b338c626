import { dataError } from "./errors.js";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/**
 * Parses JSON that comes from a stranger: like `JSON.parse`, but a repeated key is an error (two readers could see
 * two different files), nesting is bounded, and objects have no prototype, so `__proto__` is a plain key.
 * @param source names the text in errors, e.g. `model.safetensors: header`
 * @throws {TroupeError} DATA naming the source and the character position
 */
export function parseStrictJson(text: string, source: string, maxDepth = 32): Json {
  let at = 0;
  const fail = (what: string): never => {
    throw dataError(`${source}: invalid JSON at character ${at}: ${what}`);
  };
  const skipSpace = (): void => {
    while (at < text.length && " \t\n\r".includes(text[at])) at++;
  };
  const expect = (character: string): void => {
    if (text[at] !== character) fail(`expected ${character}, got ${text[at] ?? "the end"}`);
    at++;
  };

  function parseString(): string {
    const start = at;
    expect('"');
    while (at < text.length && text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
    expect('"');
    try {
      return JSON.parse(text.slice(start, at)) as string; // escapes and control characters: the platform's own rules
    } catch {
      at = start;
      return fail("not a valid string");
    }
  }

  function parseScalar(): Json {
    const token = /[-+0-9.eE]+|true|false|null/y;
    token.lastIndex = at;
    const match = token.exec(text);
    if (match === null) return fail(`unexpected ${text[at] ?? "end"}`);
    try {
      const value = JSON.parse(match[0]) as Json;
      at += match[0].length;
      return value;
    } catch {
      return fail(`not a number: ${match[0].slice(0, 40)}`);
    }
  }

  function parseValue(depth: number): Json {
    if (depth > maxDepth) fail(`nested deeper than ${maxDepth} levels`);
    skipSpace();
    if (text[at] === '"') return parseString();
    if (text[at] === "{") return parseObject(depth);
    if (text[at] === "[") return parseArray(depth);
    return parseScalar();
  }

  function parseObject(depth: number): Json {
    const object = Object.create(null) as { [key: string]: Json };
    expect("{");
    skipSpace();
    if (text[at] === "}") {
      at++;
      return object;
    }
    for (;;) {
      skipSpace();
      const key = parseString();
      if (key in object) fail(`duplicate key ${JSON.stringify(key)}`);
      skipSpace();
      expect(":");
      object[key] = parseValue(depth + 1);
      skipSpace();
      if (text[at] !== ",") break;
      at++;
    }
    expect("}");
    return object;
  }

  function parseArray(depth: number): Json {
    const array: Json[] = [];
    expect("[");
    skipSpace();
    if (text[at] === "]") {
      at++;
      return array;
    }
    for (;;) {
      array.push(parseValue(depth + 1));
      skipSpace();
      if (text[at] !== ",") break;
      at++;
    }
    expect("]");
    return array;
  }

  const value = parseValue(0);
  skipSpace();
  if (at < text.length) fail("text after the value");
  return value;
}

export function isJsonObject(value: unknown): value is { [key: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
