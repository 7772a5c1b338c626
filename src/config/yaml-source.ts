/**
 * YAML text -> plain values with their positions, defended against what YAML can do beyond data: aliases that explode,
 * duplicate keys, keys that reach into prototypes, tags, several documents.
 */
import { isAlias, isMap, isScalar, isSeq, LineCounter, parseAllDocuments, visit, type Document } from "yaml";
import type { Path } from "./schema-node.js";
import type { Problem } from "./problems.js";

export interface YamlSource {
  /** Undefined when the text could not be read at all; an empty text is an empty mapping. */
  readonly value: unknown;
  readonly problems: readonly Problem[];
  /** `file:line:column` of the key or item at `path`; undefined when the file does not hold it. */
  readonly positionOf: (path: Path) => string | undefined;
}

/** Keys that would reach an object's prototype; no field is called so. */
export const FORBIDDEN_KEYS: ReadonlySet<string> = new Set(["__proto__", "constructor", "prototype"]);

/** Aliases resolved in one file; an exploding file ("billion laughs") needs far more. */
const MAX_ALIASES = 50;
/** The schema is 5 levels deep. */
const MAX_DEPTH = 32;

export function parseYaml(text: string, fileName: string): YamlSource {
  const lines = new LineCounter();
  const at = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return `${fileName}:${line}:${col}`;
  };
  const refused = (origin: string, message: string): YamlSource => ({
    value: undefined,
    problems: [{ path: [], origin, message }],
    positionOf: () => undefined,
  });

  if (nestingOf(text) > MAX_DEPTH)
    return refused(fileName, `nested deeper than ${MAX_DEPTH} levels; a config has 5`);
  const documents = parseAllDocuments(text, {
    lineCounter: lines,
    uniqueKeys: true,
    prettyErrors: false,
    logLevel: "silent",
  });
  if (!Array.isArray(documents) || documents.length === 0)
    return { value: {}, problems: [], positionOf: () => undefined };
  const [document] = documents as Document.Parsed[];
  if (documents.length > 1)
    return refused(at(documents[1].range[0]), "a second YAML document (after ---); expected one");

  // Warnings are unresolved tags such as !!js/function: a config is data only.
  const faults = [...document.errors, ...document.warnings].map(({ message, pos }): Problem => ({
    path: [],
    origin: at(pos[0]),
    message: `not valid YAML: ${message}`,
  }));
  if (faults.length > 0) return { value: undefined, problems: faults, positionOf: () => undefined };

  const problems = [...forbiddenKeys(document, at)];
  if (problems.length > 0) return { value: undefined, problems, positionOf: () => undefined };
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: MAX_ALIASES }) ?? {};
  } catch (error) {
    return refused(
      fileName,
      `aliases that expand too far (${(error as Error).message}); write the values out`,
    );
  }
  if (typeof value !== "object" || Array.isArray(value)) {
    return refused(
      at(document.contents?.range?.[0] ?? 0),
      "expected a mapping of `key: value` lines at the top",
    );
  }
  const positionOf = (path: Path) => {
    const offset = offsetOf(document, path);
    return offset === undefined ? undefined : at(offset);
  };
  return { value, problems, positionOf };
}

/** Deepest bracket nesting or indentation, without parsing: what the parser's recursion would reach. */
function nestingOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  for (const char of text) {
    if (char === "[" || char === "{") deepest = Math.max(deepest, ++depth);
    else if ((char === "]" || char === "}") && depth > 0) depth--;
    else if (char === "\n" && depth < 0) depth = 0;
  }
  const dashes = /^(?:[-?:] ){33,}/m.test(text) ? MAX_DEPTH + 1 : 0;
  return Math.max(deepest, dashes, deepestIndentation(text));
}

function deepestIndentation(text: string): number {
  const open: number[] = [];
  let deepest = 0;
  for (const line of text.split("\n")) {
    const indent = /^ *(?=\S)/.exec(line)?.[0].length;
    if (indent === undefined) continue;
    while (open.length > 0 && open[open.length - 1] >= indent) open.pop();
    open.push(indent);
    deepest = Math.max(deepest, open.length);
  }
  return deepest;
}

function forbiddenKeys(document: Document.Parsed, at: (offset: number) => string): Problem[] {
  const problems: Problem[] = [];
  visit(document, {
    Pair(_, { key }) {
      const offset = isScalar(key) || isMap(key) || isSeq(key) || isAlias(key) ? (key.range?.[0] ?? 0) : 0;
      if (!isScalar(key) || typeof key.value !== "string") {
        problems.push({
          path: [],
          origin: at(offset),
          message: `a key must be text, got ${String(isScalar(key) ? key.value : key)}`,
        });
      } else if (FORBIDDEN_KEYS.has(key.value)) {
        problems.push({ path: [], origin: at(offset), message: `the key ${key.value} is not allowed` });
      }
    },
  });
  return problems;
}

function offsetOf(document: Document.Parsed, path: Path): number | undefined {
  let node: unknown = document.contents;
  let offset: number | undefined;
  for (const key of path) {
    if (isAlias(node)) node = node.resolve(document);
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && item.key.value === key);
      if (pair === undefined || !isScalar(pair.key)) return undefined;
      offset = pair.key.range?.[0];
      node = pair.value;
    } else if (isSeq(node) && typeof key === "number") {
      node = node.items[key];
      if (isScalar(node)) offset = node.range?.[0] ?? offset;
    } else return undefined;
  }
  return offset;
}
