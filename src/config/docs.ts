/** docs/configuration.md, generated from the schema so that it cannot lag behind it (`troupe config docs`). */
import {
  branchesOf,
  configJsonSchema,
  describeExpected,
  isNullable,
  type SchemaNode,
} from "./schema-node.js";

interface Row {
  readonly key: string;
  readonly accepts: string;
  readonly default: string;
  readonly effect: string;
}

const INTRODUCTION = `# Configuration

<!-- Written by \`troupe config docs\`. Edit the descriptions in src/config/schema.ts, then run it again. -->

A run is described by one YAML file. Only \`data.path\` has no default:

\`\`\`yaml
# yaml-language-server: $schema=./config.schema.json
data:
  path: comparisons.jsonl
ppo:
  iterations: 100
\`\`\`

Values come from these places; a later one wins:

1. the defaults below, then the values of \`preset\`
2. the file
3. the environment: \`TROUPE__PPO__LAM=0.9\` sets \`ppo.lam\` (case and \`_\` inside a name do not matter)
4. \`--set ppo.lam=0.9\`, as often as needed; the value is YAML
5. a command's own flags, such as \`--rollouts 4\`

Relative paths start from the folder the command runs in. A key that does not exist, a value out of
range or two values that contradict each other end the command with exit code 2 before any process starts; all problems
are listed at once. \`troupe config print FILE\` shows the complete result, \`troupe config validate FILE\` only checks
it, \`troupe config schema\` writes the JSON schema for editors.

\`preset: deepspeed-chat\` sets the semantics and hyper-parameters of DeepSpeed-Chat, quirks included: loss on all tokens,
the span-averaged reward loss, fixed KL coefficient 0.1, no advantage whitening, untrained end tokens, losses averaged per
micro-batch.
`;

/** The whole page, in the form Prettier leaves alone. */
export function renderConfigDocs(): string {
  const sections: string[] = [INTRODUCTION];
  const top: Row[] = [];
  for (const [key, node] of Object.entries(configJsonSchema().properties ?? {})) {
    if (branchesOf(node)[0]?.type !== "object") top.push(rowOf(key, node));
    else sections.push(renderSection(key, node));
  }
  sections.splice(1, 0, `## General\n\n${renderTable(top)}`);
  return sections.join("\n");
}

function renderSection(name: string, node: SchemaNode): string {
  const title = `## \`${name}\`\n\n${sentence(node.description ?? name)}\n`;
  return `${title}\n${renderTable(rowsOf(`${name}.`, node))}`;
}

function rowsOf(prefix: string, node: SchemaNode): Row[] {
  return Object.entries(node.properties ?? {}).flatMap(([key, child]) => {
    const path = `${prefix}${key}`;
    const branches = branchesOf(child);
    if (branches[0]?.properties === undefined) return [rowOf(path, child)];
    if (branches.length > 1)
      return [rowOf(path, child), ...branches.flatMap((branch) => branchRows(path, branch))];
    const inner = rowsOf(`${path}.`, branches[0]);
    return isNullable(child) ? [rowOf(path, child), ...inner] : inner;
  });
}

/** Fields of one branch of a union; the tag itself says which branch it is. */
function branchRows(path: string, branch: SchemaNode): Row[] {
  const tag = branch.properties?.type;
  const first: Row = {
    key: `\`${path}.type\``,
    accepts: `\`${tag?.const ?? ""}\``,
    default: "",
    effect: cell(tag?.description ?? ""),
  };
  const others = Object.entries(branch.properties ?? {}).filter(([key]) => key !== "type");
  return [first, ...others.map(([key, child]) => rowOf(`${path}.${key}`, child))];
}

function rowOf(key: string, node: SchemaNode): Row {
  const isGroup = branchesOf(node).length === 1 && branchesOf(node)[0].properties !== undefined;
  const accepts = isGroup ? "a mapping or null" : describeExpected(node);
  return {
    key: `\`${key}\``,
    accepts: cell(accepts),
    default: node.default === undefined ? "required" : `\`${showDefault(node.default)}\``,
    effect: cell(node.description ?? ""),
  };
}

function showDefault(value: unknown): string {
  if (Array.isArray(value)) return `[${value.join(", ")}]`;
  if (typeof value === "object" && value !== null) {
    return `{${Object.entries(value)
      .map(([key, child]) => `${key}: ${String(child)}`)
      .join(", ")}}`;
  }
  return String(value);
}

/** `|` ends a cell; `^`, `*` and `_` are markup outside code. */
const cell = (text: string): string => text.replaceAll("|", "\\|").replace(/matches (\S+)/, "matches `$1`");

const sentence = (text: string): string => `${text[0].toUpperCase()}${text.slice(1)}.`;

/** A table padded the way Prettier pads it. */
function renderTable(rows: readonly Row[]): string {
  const header: Row = { key: "Field", accepts: "Accepts", default: "Default", effect: "Effect" };
  const columns = ["key", "accepts", "default", "effect"] as const;
  const widths = columns.map((column) =>
    Math.max(...[header, ...rows].map((row) => [...row[column]].length), 3),
  );
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const pad = (row: Row) =>
    line(columns.map((column, i) => row[column] + " ".repeat(widths[i] - [...row[column]].length)));
  return [pad(header), line(widths.map((width) => "-".repeat(width))), ...rows.map(pad), ""].join("\n");
}
