/** Values given outside the file: `--set a.b=value`, `TROUPE__A__B=value`, and a command's own flags. */
import { parseDocument } from "yaml";
import { configJsonSchema, describeExpected, isRecord, nodeAt, type Path } from "./schema-node.js";
import { respell, suggestField } from "./suggestion.js";
import { FORBIDDEN_KEYS } from "./yaml-source.js";
import type { Problem } from "./problems.js";

export interface Assignment {
  readonly path: readonly string[];
  readonly value: unknown;
  /** What the user typed, for messages: `--set ppo.lam=2`. */
  readonly origin: string;
}

export interface Assignments {
  /** Weakest first. */
  readonly assignments: readonly Assignment[];
  readonly problems: readonly Problem[];
}

const ENV_PREFIX = "TROUPE__";

interface AssignmentSources {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly sets?: readonly string[];
  readonly flags?: Readonly<Record<string, unknown>>;
}

export function parseAssignments({ env = {}, sets = [], flags = {} }: AssignmentSources): Assignments {
  const assignments: Assignment[] = [];
  const problems: Problem[] = [];
  const take = (origin: string, path: readonly string[], text: string) => {
    const problem = pathProblem(origin, path);
    const parsed = problem === undefined ? parseValue(text, path) : undefined;
    if (problem !== undefined) problems.push(problem);
    else if (parsed === undefined)
      problems.push({ path: [], origin, message: `the value is not valid YAML: ${text}` });
    else assignments.push({ path, value: parsed.value, origin });
  };
  for (const name of Object.keys(env).sort()) {
    const text = env[name];
    if (!name.startsWith(ENV_PREFIX) || text === undefined) continue;
    take(`environment ${name}`, respell(name.slice(ENV_PREFIX.length).split("__")), text);
  }
  for (const set of sets) {
    const equals = set.indexOf("=");
    if (equals <= 0) problems.push({ path: [], origin: `--set ${set}`, message: "expected a.b=value" });
    else take(`--set ${set}`, set.slice(0, equals).trim().split("."), set.slice(equals + 1));
  }
  for (const [name, value] of Object.entries(flags)) {
    if (value !== undefined) assignments.push({ path: name.split("."), value, origin: "command line" });
  }
  return { assignments, problems };
}

function pathProblem(origin: string, path: readonly string[]): Problem | undefined {
  const bad = path.find((segment) => segment === "" || FORBIDDEN_KEYS.has(segment));
  if (bad !== undefined)
    return {
      path: [],
      origin,
      message: `${bad === "" ? "an empty name" : bad} is not allowed in a field's path`,
    };
  const known = path.findIndex(
    (_, i) => nodeAt(configJsonSchema(), path.slice(0, i + 1), undefined) === undefined,
  );
  if (known === -1) return undefined;
  const parent = path.slice(0, known);
  const parentNode = nodeAt(configJsonSchema(), parent, undefined);
  if (
    known > 0 &&
    parentNode?.properties === undefined &&
    parentNode?.oneOf === undefined &&
    parentNode?.anyOf === undefined
  ) {
    return {
      path: [],
      origin,
      message: `${parent.join(".")} is ${parentNode === undefined ? "unknown" : describeExpected(parentNode)}; it has no fields of its own`,
    };
  }
  const suggestion = suggestField(parent, path[known], undefined);
  const hint = suggestion === undefined ? "" : `; did you mean ${suggestion}?`;
  return { path: [], origin, message: `unknown key ${path.slice(0, known + 1).join(".")}${hint}` };
}

/** A text field takes the characters as they are, unless they are quoted or `null`; all others are YAML. */
function parseValue(text: string, path: Path): { value: unknown } | undefined {
  const node = nodeAt(configJsonSchema(), path, undefined);
  const isText =
    node !== undefined &&
    [node, ...(node.anyOf ?? [])].some((branch) => branch.type === "string" && branch.enum === undefined);
  const document = parseDocument(text, { uniqueKeys: true, prettyErrors: false, logLevel: "silent" });
  const isSound = document.errors.length === 0 && document.warnings.length === 0;
  let value: unknown;
  try {
    value = isSound ? document.toJS({ maxAliasCount: 0 }) : undefined;
  } catch {
    return undefined; // an alias: refused like any other YAML fault
  }
  if (isText) return { value: isSound && (typeof value === "string" || value === null) ? value : text };
  return isSound ? { value } : undefined;
}

/** A copy of `root` with `value` at `path`; what stands in the way and is not a mapping is replaced. */
export function setAt(root: unknown, [key, ...rest]: Path, value: unknown): unknown {
  const holder = isRecord(root) ? root : {};
  const current = Object.hasOwn(holder, key) ? holder[key] : undefined;
  const child = rest.length === 0 ? value : setAt(withBranch(current, rest[0], value), rest, value);
  return { ...holder, [key]: child };
}

/** Naming another `type` of a union starts that branch afresh: keys of the old one would be unknown there. */
function withBranch(current: unknown, key: string | number, value: unknown): unknown {
  const isOtherBranch =
    key === "type" && isRecord(current) && current.type !== undefined && current.type !== value;
  return isOtherBranch ? {} : current;
}
