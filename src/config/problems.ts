/** Turns what the schema and the resolver found into lines a user can act on. */
import type { z } from "zod";
import type { Contradiction } from "./resolve.js";
import {
  branchesOf,
  configJsonSchema,
  describeExpected,
  describeGot,
  isRecord,
  nodeAt,
  type Path,
} from "./schema-node.js";
import { suggestField } from "./suggestion.js";

export interface Problem {
  /** The field at fault; empty when the whole source is. */
  readonly path: Path;
  /** Where it was written: `my.yaml:12:3`, `--set ppo.lam=2`, `environment TROUPE__PPO__LAM`. */
  readonly origin: string;
  readonly message: string;
}

type Issue = z.core.$ZodIssue;

/**
 * One problem per field at fault: what was expected there and what was given.
 * @param raw what was validated, to quote the given values from
 */
export function schemaProblems(
  issues: readonly Issue[],
  raw: unknown,
  where: (path: Path) => string,
): Problem[] {
  return issues.flatMap((issue): Problem[] => {
    const path = issue.path as Path;
    if (issue.code === "unrecognized_keys") {
      return issue.keys.map((key) => {
        const full = [...path, key];
        return {
          path: full,
          origin: where(full),
          message: `unknown key ${full.join(".")}${unknownKeyHint(path, key, raw)}`,
        };
      });
    }
    const node = nodeAt(configJsonSchema(), path, raw);
    const expected = node === undefined ? issue.message : describeExpected(node);
    return [
      {
        path,
        origin: where(path),
        message: `${path.join(".") || "the config"}: expected ${expected}, got ${describeGot(valueAt(raw, path))}`,
      },
    ];
  });
}

function unknownKeyHint(parent: Path, key: string, raw: unknown): string {
  const node = nodeAt(configJsonSchema(), parent, raw);
  const branches = node === undefined ? [] : branchesOf(node);
  const owner =
    branches.length > 1 ? branches.find((branch) => Object.hasOwn(branch.properties ?? {}, key)) : undefined;
  const holder = valueAt(raw, parent);
  const type = isRecord(holder) ? String(holder.type) : undefined;
  if (owner?.properties?.type?.const !== undefined) {
    return ` for type ${type}; it belongs to type ${owner.properties.type.const}`;
  }
  const suggestion = suggestField(parent, key, raw);
  return suggestion === undefined ? "" : `; did you mean ${suggestion}?`;
}

/** Contradictions among fields that are sound in themselves; a field already reported would only repeat itself. */
export function contradictionProblems(
  contradictions: readonly Contradiction[],
  reported: readonly Problem[],
  writtenAt: (path: Path) => string | undefined,
  sourceName: string,
): Problem[] {
  const faulty = reported.map(({ path }) => path.join(".")).filter((path) => path !== "");
  const touches = (field: string) =>
    faulty.some((path) => field === path || field.startsWith(`${path}.`) || path.startsWith(`${field}.`));
  return contradictions
    .filter(({ paths }) => !paths.some(touches))
    .map(({ paths, message }) => {
      const origins = paths.map((path) => writtenAt(path.split(".")));
      return {
        path: paths[0].split("."),
        origin: origins.find((origin) => origin !== undefined) ?? sourceName,
        message,
      };
    });
}

function valueAt(root: unknown, path: Path): unknown {
  let value = root;
  for (const key of path) {
    if (!isRecord(value) && !Array.isArray(value)) return undefined;
    value = (value as Record<string | number, unknown>)[key];
  }
  return value;
}
