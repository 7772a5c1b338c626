/**
 * Config sources -> one validated, frozen Config. Strength, weakest first: preset, file, environment
 * (`TROUPE__PPO__LAM=0.9`), `--set ppo.lam=0.9`, a command's own flags. Every problem is reported at once, each with
 * where it was written, what was expected and what was given.
 */
import { readFile, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { configError } from "../shared/errors.js";
import { parseAssignments, setAt, type Assignment } from "./assignments.js";
import { layered, PRESETS, type PartialConfig } from "./presets.js";
import { contradictionProblems, schemaProblems, type Problem } from "./problems.js";
import { resolveConfig, type DerivedSizes } from "./resolve.js";
import { configSchema, type Config } from "./schema.js";
import { configJsonSchema, isRecord, isSection, type Path, type SchemaNode } from "./schema-node.js";
import { parseYaml, type YamlSource } from "./yaml-source.js";

export interface ConfigSources {
  /** YAML (or JSON) text, when it is not read from `file`. */
  readonly text?: string;
  /** Path of the YAML file; with `text`, only the name shown in messages. */
  readonly file?: string;
  /** Values under the file, above the preset: what a command such as quickstart brings along. */
  readonly base?: PartialConfig;
  /** Variables named `TROUPE__A__B` are read; case and `_` inside a name do not matter. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** `a.b=value`, the value in YAML. */
  readonly sets?: readonly string[];
  /** Values of a command's own flags, strongest: `{ "cluster.rollouts": 4 }`; undefined = not given. */
  readonly flags?: Readonly<Record<string, unknown>>;
}

export interface LoadedConfig {
  /** Complete, frozen all the way down, paths absolute. */
  readonly config: Config;
  readonly derived: DerivedSizes;
  /** Settings that work but waste something; one line each. */
  readonly warnings: readonly string[];
}

/** More than any config needs; keeps a wrong file name (a data set) from being parsed as YAML. */
const MAX_FILE_BYTES = 1 << 20;

/**
 * Reads the file and validates everything.
 * @throws {TroupeError} CONFIG, listing every problem
 */
export async function loadConfig(sources: ConfigSources): Promise<LoadedConfig> {
  if (sources.file === undefined || sources.text !== undefined) return parseConfig(sources);
  return parseConfig({ ...sources, text: await readConfigFile(sources.file) });
}

async function readConfigFile(file: string): Promise<string> {
  let bytes: number;
  try {
    const entry = await stat(file);
    if (!entry.isFile()) throw configError(`${file} is not a file; expected a YAML config`);
    bytes = entry.size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") {
      throw configError(`config file ${file} does not exist (looked in ${resolve(file)})`, { cause: error });
    }
    throw error;
  }
  if (bytes > MAX_FILE_BYTES) {
    throw configError(
      `${file} is ${bytes} bytes; a config has at most ${MAX_FILE_BYTES}. Is it the data set?`,
    );
  }
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw configError(`config file ${file} cannot be read: ${(error as Error).message}`, { cause: error });
  }
}

/** Validates sources whose text is already here; touches no file. */
export function parseConfig(sources: ConfigSources): LoadedConfig {
  const name = sources.file ?? "config";
  const yaml = parseYaml(sources.text ?? "", name);
  const assigned = parseAssignments(sources);
  const problems: Problem[] = [...yaml.problems, ...assigned.problems];
  // What the file says is unknown then, so that every field would look missing.
  if (yaml.value === undefined) throw problemsError(name, problems);

  let user: unknown = withoutEmptySections(yaml.value, configJsonSchema());
  for (const { path, value } of assigned.assignments) user = setAt(user, path, value);
  const written = withAbsolutePaths(layered(sources.base ?? {}, user));
  const raw = withDefaultTokenizer(layered(presetOf(written), layered({ data: {} }, written)));

  const writtenAt = (path: Path) => originOf(path, yaml, assigned.assignments);
  const where = (path: Path) => writtenAt(path) ?? nearestOrigin(path, writtenAt) ?? name;
  const parsed = configSchema.safeParse(raw);
  if (!parsed.success) problems.push(...schemaProblems(parsed.error.issues, raw, where));
  const checkable = parsed.success ? parsed.data : parseWithoutFaults(raw, problems);
  const resolution = checkable === undefined ? undefined : resolveConfig(checkable);
  if (resolution !== undefined)
    problems.push(
      ...contradictionProblems(resolution.contradictions, problems, (path) => writtenAt(path), name),
    );

  if (problems.length > 0 || !parsed.success || resolution === undefined) throw problemsError(name, problems);
  return { config: deepFreeze(parsed.data), derived: resolution.derived, warnings: resolution.warnings };
}

function problemsError(name: string, problems: readonly Problem[]) {
  const count = problems.length === 1 ? "1 problem" : `${problems.length} problems`;
  const lines = problems.map((problem) => `  ${problem.origin}: ${problem.message}`);
  return configError(
    `${count} in the configuration (${name}):\n${lines.join("\n")}\nEvery key, range and default: docs/configuration.md or \`troupe config docs\`.`,
  );
}

function presetOf(written: unknown): PartialConfig {
  const name = isRecord(written) ? (written.preset ?? "default") : "default";
  return typeof name === "string" && Object.hasOwn(PRESETS, name)
    ? PRESETS[name as Config["preset"]]
    : PRESETS.default;
}

/** Without a model to take a tokenizer from, one is trained, unless the user says otherwise. */
function withDefaultTokenizer(raw: unknown): unknown {
  if (!isRecord(raw)) return raw;
  const model = raw.model ?? {};
  if (!isRecord(model) || model.tokenizer !== undefined || (model.path ?? null) !== null) return raw;
  return { ...raw, model: { ...model, tokenizer: { type: "train" } } };
}

/** `ppo:` with every line below it commented out is null in YAML; it means "nothing to say", not null. */
function withoutEmptySections(value: unknown, node: SchemaNode): unknown {
  if (!isRecord(value) || node.properties === undefined) return value ?? {};
  const kept = Object.entries(value).flatMap(([key, child]): [string, unknown][] => {
    const childNode = Object.hasOwn(node.properties ?? {}, key) ? node.properties?.[key] : undefined;
    if (childNode === undefined || !isSection(childNode)) return [[key, child]];
    return child === null ? [] : [[key, withoutEmptySections(child, childNode)]];
  });
  return Object.fromEntries(kept);
}

/** Fields that name a file or folder. */
const PATH_FIELDS = [
  "data.path",
  "model.path",
  "model.tokenizer.path",
  "reward.path",
  "cluster.tokenFile",
] as const;

/** Relative paths start from the folder the command runs in; the processes of a run may work elsewhere. */
function withAbsolutePaths(value: unknown): unknown {
  let result = value;
  for (const field of PATH_FIELDS) {
    const path = field.split(".");
    const given = path.reduce<unknown>(
      (here, key) => (isRecord(here) && Object.hasOwn(here, key) ? here[key] : undefined),
      value,
    );
    if (typeof given === "string" && given !== "") result = setAt(result, path, resolve(given));
  }
  return result;
}

/** The config with every faulty value left out, to look for contradictions among the sound ones as well. */
function parseWithoutFaults(raw: unknown, problems: readonly Problem[]): Config | undefined {
  let sound = raw;
  for (const { path } of problems) if (path.length > 0) sound = withoutPath(sound, path);
  const withData = isRecord(sound) ? layered({ data: { path: "unknown" } }, sound) : sound;
  const parsed = configSchema.safeParse(withDefaultTokenizer(withData));
  return parsed.success ? parsed.data : undefined;
}

function withoutPath(value: unknown, [key, ...rest]: Path): unknown {
  // An item of a list cannot be left out alone; its list goes, by returning undefined.
  if (!isRecord(value) || typeof key !== "string") return undefined;
  const child = rest.length === 0 ? undefined : withoutPath(value[key], rest);
  const { [key]: _removed, ...others } = value;
  return child === undefined ? others : { ...others, [key]: child };
}

/** Where the value at `path` was written; undefined when it is a default. */
function originOf(path: Path, yaml: YamlSource, assignments: readonly Assignment[]): string | undefined {
  const dotted = path.join(".");
  const owner = assignments.findLast(({ path: assigned }) => {
    const name = assigned.join(".");
    return dotted === name || dotted.startsWith(`${name}.`);
  });
  return owner?.origin ?? yaml.positionOf(path);
}

/** What is missing is reported where the group around it was written. */
function nearestOrigin(path: Path, writtenAt: (path: Path) => string | undefined): string | undefined {
  for (let length = path.length - 1; length > 0; length--) {
    const origin = writtenAt(path.slice(0, length));
    if (origin !== undefined) return origin;
  }
  return undefined;
}

function deepFreeze<T>(value: T): T {
  if (typeof value !== "object" || value === null) return value;
  for (const child of Object.values(value)) deepFreeze(child);
  return Object.freeze(value);
}
