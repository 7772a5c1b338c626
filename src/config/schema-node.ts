/**
 * Reads the JSON schema of the config: which keys a path may have, and what a field expects in words. Error messages,
 * the docs table and `troupe config schema` all speak from here, so they cannot disagree with the check itself.
 */
import { z } from "zod";
import { configSchema } from "./schema.js";

/** The parts of JSON Schema that zod writes for our config. */
export interface SchemaNode {
  readonly type?: "object" | "array" | "string" | "number" | "integer" | "boolean" | "null";
  readonly description?: string;
  readonly default?: unknown;
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly required?: readonly string[];
  readonly items?: SchemaNode | false;
  readonly prefixItems?: readonly SchemaNode[];
  readonly minItems?: number;
  readonly anyOf?: readonly SchemaNode[];
  readonly oneOf?: readonly SchemaNode[];
  readonly const?: string;
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly exclusiveMaximum?: number;
  readonly pattern?: string;
  readonly minLength?: number;
  readonly maxLength?: number;
}

export type Path = readonly (string | number)[];

let cachedSchema: SchemaNode | undefined;

/** JSON schema (draft 2020-12) of what a user may write. */
export function configJsonSchema(): SchemaNode {
  cachedSchema ??= {
    ...(z.toJSONSchema(configSchema, { io: "input" }) as SchemaNode),
    description: "Configuration of a Troupe run",
  };
  return cachedSchema;
}

/** The branches a node may take, without null. */
export function branchesOf(node: SchemaNode): readonly SchemaNode[] {
  const branches = node.anyOf ?? node.oneOf;
  return branches === undefined
    ? [node]
    : branches.filter((branch) => branch.type !== "null").flatMap(branchesOf);
}

export const isNullable = (node: SchemaNode): boolean =>
  node.anyOf?.some((branch) => branch.type === "null") ?? false;

/** Whether the node is a plain group of fields: not a union, not nullable. */
export const isSection = (node: SchemaNode): boolean =>
  node.type === "object" && node.properties !== undefined;

/**
 * The schema at `path`. In a union the branch whose `type` equals the one in `value` is followed.
 * @param value what the user wrote at the root, to choose branches by
 * @returns undefined where the schema has no such path
 */
export function nodeAt(root: SchemaNode, path: Path, value: unknown): SchemaNode | undefined {
  let node: SchemaNode | undefined = root;
  let here = value;
  for (const key of path) {
    if (node === undefined) return undefined;
    node = childOf(node, key, here);
    here =
      isRecord(here) || Array.isArray(here) ? (here as Record<string | number, unknown>)[key] : undefined;
  }
  return node;
}

function childOf(node: SchemaNode, key: string | number, value: unknown): SchemaNode | undefined {
  if (typeof key === "number") return node.prefixItems?.[key] ?? (node.items || undefined);
  const holders = branchesOf(node).filter((branch) => Object.hasOwn(branch.properties ?? {}, key));
  const type = isRecord(value) ? value.type : undefined;
  const holder = holders.find((branch) => branch.properties?.type?.const === type) ?? holders[0];
  if (holder === undefined) return undefined;
  const tags = branchesOf(node).map((branch) => branch.properties?.type?.const);
  if (key === "type" && tags.length > 1) return { enum: tags.filter((tag) => tag !== undefined) };
  return holder.properties?.[key];
}

/** Every field of the config as a dotted path, unions and nullable groups included. */
export function fieldPaths(node: SchemaNode = configJsonSchema(), prefix = ""): string[] {
  const paths = branchesOf(node).flatMap((branch) =>
    Object.entries(branch.properties ?? {}).flatMap(([key, child]) => [
      `${prefix}${key}`,
      ...fieldPaths(child, `${prefix}${key}.`),
    ]),
  );
  return [...new Set(paths)];
}

/** What a field accepts, in words: `a whole number from 0 to 65535`. */
export function describeExpected(node: SchemaNode): string {
  const branches = branchesOf(node);
  const described = branches.length > 1 ? describeUnion(branches) : describeOne(branches[0] ?? node);
  return isNullable(node) ? `${described} or null` : described;
}

function describeUnion(branches: readonly SchemaNode[]): string {
  const tags = branches.map((branch) => branch.properties?.type?.const ?? describeOne(branch));
  return `a mapping whose type is one of ${tags.join(", ")}`;
}

function describeOne(node: SchemaNode): string {
  if (node.const !== undefined) return node.const;
  if (node.enum !== undefined) return `one of ${node.enum.join(", ")}`;
  switch (node.type) {
    case "boolean":
      return "true or false";
    case "integer":
      return `a whole number${describeRange(node)}`;
    case "number":
      return `a number${describeRange(node)}`;
    case "string":
      return `text${describeText(node)}`;
    case "array":
      return describeList(node);
    case "object":
      return `a mapping with keys of ${Object.keys(node.properties ?? {}).join(", ")}`;
    case "null":
    case undefined:
      return "null";
  }
}

function describeRange({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }: SchemaNode): string {
  const top = maximum === Number.MAX_SAFE_INTEGER ? undefined : maximum;
  const bottom = minimum === Number.MIN_SAFE_INTEGER ? undefined : minimum;
  if (bottom !== undefined && top !== undefined) return ` from ${bottom} to ${top}`;
  const parts = [
    ...(bottom === undefined ? [] : [`of at least ${bottom}`]),
    ...(exclusiveMinimum === undefined ? [] : [`above ${exclusiveMinimum}`]),
    ...(top === undefined ? [] : [`at most ${top}`]),
    ...(exclusiveMaximum === undefined ? [] : [`below ${exclusiveMaximum}`]),
  ];
  return parts.length === 0 ? "" : ` ${parts.join(" and ")}`;
}

function describeText({ pattern, minLength, maxLength }: SchemaNode): string {
  // zod writes `.includes("{prompt}")` as the pattern \{prompt\}.
  if (pattern === "\\{prompt\\}") return " that contains {prompt}";
  if (pattern !== undefined)
    return ` that matches ${pattern}${maxLength === undefined ? "" : ` (${maxLength} characters at most)`}`;
  return minLength === undefined ? "" : " that is not empty";
}

function describeList(node: SchemaNode): string {
  if (node.prefixItems !== undefined) {
    return `a list of ${node.prefixItems.length} items, each ${describeOne(node.prefixItems[0] ?? node)}`;
  }
  const count = node.minItems === undefined ? "a list" : `a list of at least ${node.minItems} item`;
  return node.items ? `${count}, each ${describeOne(node.items)}` : count;
}

/** What a user gave, in words, short enough for one line. */
export function describeGot(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "string") {
    const text = JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value);
    return `the text ${text}`;
  }
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : `a list of ${value.length}`;
  if (isRecord(value)) {
    const keys = Object.keys(value);
    return keys.length === 0 ? "an empty mapping" : `a mapping with ${keys.slice(0, 5).join(", ")}`;
  }
  return String(value);
}

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
