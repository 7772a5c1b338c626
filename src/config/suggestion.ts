/** "Did you mean": which field a misspelt or misplaced key was probably meant to be. */
import { branchesOf, configJsonSchema, fieldPaths, nodeAt, type Path } from "./schema-node.js";

/** What other trainers call our fields, in the form `plain` gives. */
const KNOWN_ELSEWHERE: Readonly<Record<string, string>> = {
  lr: "learningRate",
  actorlr: "ppo.actor.learningRate",
  criticlr: "ppo.critic.learningRate",
  klcoef: "ppo.klController.coef",
  klctl: "ppo.klController.coef",
  initklcoef: "ppo.klController.initCoef",
  epsclip: "ppo.cliprange",
  valueclip: "ppo.cliprangeValue",
  gaelambda: "ppo.lam",
  lambda: "ppo.lam",
  maxnorm: "clipNorm",
  gradclip: "clipNorm",
  maxgradnorm: "clipNorm",
  responselength: "generation.maxNewTokens",
  minibatch: "ppo.minibatchSize",
  numppoepochs: "ppo.ppoEpochs",
  gpus: "cluster.rollouts",
};

/** Case, `_` and `-` do not matter: `rollout_batch_size` is `rolloutBatchSize`. */
export const plain = (key: string): string => key.replaceAll(/[-_\s]/g, "").toLowerCase();

/** Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`. */
export function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = last[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      row[j] = Math.min(last[j] + 1, row[j - 1] + 1, replaced);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        row[j] = Math.min(row[j], beforeLast[j - 2] + 1);
    }
    [beforeLast, last] = [last, row];
  }
  return last[b.length];
}

/** The candidate closest to `word`, if it is close enough to be a slip: one edit in three letters. */
export function closest(word: string, candidates: readonly string[]): string | undefined {
  const target = plain(word);
  const limit = Math.max(1, Math.floor(target.length / 3));
  let best: { candidate: string; distance: number } | undefined;
  for (const candidate of candidates) {
    const name = plain(candidate);
    if (Math.abs(name.length - target.length) > limit) continue;
    const distance = editDistance(target, name);
    if (distance <= limit && (best === undefined || distance < best.distance)) best = { candidate, distance };
  }
  return best?.candidate;
}

/**
 * The field that `key`, unknown under `parent`, was probably meant to be: first a sibling, then what other trainers
 * call it, then a field of the same name elsewhere.
 * @returns a dotted path from the root
 */
export function suggestField(parent: Path, key: string, root: unknown): string | undefined {
  const schema = configJsonSchema();
  const prefix = parent.length === 0 ? "" : `${parent.join(".")}.`;
  const node = nodeAt(schema, parent, root);
  const siblings =
    node === undefined ? [] : branchesOf(node).flatMap((branch) => Object.keys(branch.properties ?? {}));
  const alias = KNOWN_ELSEWHERE[plain(key)];
  if (alias !== undefined && siblings.includes(alias)) return prefix + alias;
  const sibling = closest(key, siblings);
  if (sibling !== undefined) return prefix + sibling;
  if (alias !== undefined)
    return alias.includes(".") ? alias : fieldPaths().find((path) => path.endsWith(`.${alias}`));
  const leaf = (path: string) => path.slice(path.lastIndexOf(".") + 1);
  return fieldPaths().find((path) => plain(leaf(path)) === plain(key));
}

/** The real spelling of a path whose segments may differ in case, `_` and `-`; segments that match nothing stay. */
export function respell(segments: readonly string[]): string[] {
  const path: string[] = [];
  for (const segment of segments) {
    const node = nodeAt(configJsonSchema(), path, undefined);
    const keys =
      node === undefined ? [] : branchesOf(node).flatMap((branch) => Object.keys(branch.properties ?? {}));
    path.push(keys.find((key) => plain(key) === plain(segment)) ?? segment);
  }
  return path;
}
