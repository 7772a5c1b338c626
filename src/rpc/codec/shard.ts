/** Micro-shards of a minibatch, as ragged columns. */
import type { Experience } from "../../rl/types.js";
import type { PreferencePair, SftRow } from "../../data/types.js";
import { protocolError } from "../../shared/errors.js";
import type { LanguageRows, LanguageRows__Output } from "../generated/troupe/v1/LanguageRows.js";
import type { PreferenceRows__Output } from "../generated/troupe/v1/PreferenceRows.js";
import type { ExperienceRows__Output } from "../generated/troupe/v1/ExperienceRows.js";
import type { Shard, Shard__Output } from "../generated/troupe/v1/Shard.js";
import {
  float32Column,
  fromRagged,
  int32Column,
  toColumn,
  toRagged,
  uint32Column,
  uint8Column,
} from "./columns.js";

/** What the losses of a ppo step need of an experience. */
export type PpoRow = Pick<
  Experience,
  | "promptIds"
  | "responseIds"
  | "logprobs"
  | "proximalLogprobs"
  | "values"
  | "advantages"
  | "returns"
  | "actionMask"
>;

export type ShardRows =
  | { readonly kind: "sft"; readonly rows: readonly SftRow[] }
  | { readonly kind: "reward"; readonly rows: readonly PreferencePair[] }
  | { readonly kind: "ppo"; readonly rows: readonly PpoRow[]; readonly ptx?: readonly SftRow[] };

export interface MicroShard {
  /** Position among all micro-shards of the minibatch. */
  readonly index: number;
  readonly rows: ShardRows;
}

function toLanguageRows(rows: readonly SftRow[]): LanguageRows {
  const ids = toRagged(
    rows.map((row) => row.ids),
    Int32Array,
  );
  const mask = toRagged(
    rows.map((row) => row.lossMask),
    Uint8Array,
  );
  return { lengths: toColumn(ids.lengths), ids: toColumn(ids.values), lossMask: toColumn(mask.values) };
}

function fromLanguageRows(message: LanguageRows__Output, name: string): SftRow[] {
  const lengths = uint32Column(message.lengths, `${name}.lengths`);
  const ids = fromRagged(int32Column(message.ids, `${name}.ids`), lengths, `${name}.ids`);
  const masks = fromRagged(uint8Column(message.lossMask, `${name}.loss_mask`), lengths, `${name}.loss_mask`);
  return ids.map((row, i) => ({ ids: row, lossMask: masks[i] }));
}

function toPreferenceRows(rows: readonly PreferencePair[]) {
  const chosen = toRagged(
    rows.map((row) => row.chosen),
    Int32Array,
  );
  const rejected = toRagged(
    rows.map((row) => row.rejected),
    Int32Array,
  );
  return {
    chosenLengths: toColumn(chosen.lengths),
    chosenIds: toColumn(chosen.values),
    rejectedLengths: toColumn(rejected.lengths),
    rejectedIds: toColumn(rejected.values),
    promptLengths: toColumn(Uint32Array.from(rows, (row) => row.promptTokens)),
  };
}

function fromPreferenceRows(message: PreferenceRows__Output): PreferencePair[] {
  const chosenLengths = uint32Column(message.chosenLengths, "PreferenceRows.chosen_lengths");
  const rejectedLengths = uint32Column(
    message.rejectedLengths,
    "PreferenceRows.rejected_lengths",
    chosenLengths.length,
  );
  const promptLengths = uint32Column(
    message.promptLengths,
    "PreferenceRows.prompt_lengths",
    chosenLengths.length,
  );
  const chosen = fromRagged(
    int32Column(message.chosenIds, "PreferenceRows.chosen_ids"),
    chosenLengths,
    "PreferenceRows.chosen_ids",
  );
  const rejected = fromRagged(
    int32Column(message.rejectedIds, "PreferenceRows.rejected_ids"),
    rejectedLengths,
    "PreferenceRows.rejected_ids",
  );
  return chosen.map((ids, i) => ({ chosen: ids, rejected: rejected[i], promptTokens: promptLengths[i] }));
}

function toExperienceRows(rows: readonly PpoRow[], ptx: readonly SftRow[] | undefined) {
  const column = (pick: (row: PpoRow) => Float32Array) =>
    toColumn(toRagged(rows.map(pick), Float32Array).values);
  return {
    promptLengths: toColumn(Uint32Array.from(rows, (row) => row.promptIds.length)),
    responseLengths: toColumn(Uint32Array.from(rows, (row) => row.responseIds.length)),
    ids: toColumn(
      toRagged(
        rows.flatMap((row) => [row.promptIds, row.responseIds]),
        Int32Array,
      ).values,
    ),
    logprobs: column((row) => row.logprobs),
    ...(rows.some((row) => row.proximalLogprobs !== undefined)
      ? { proximalLogprobs: column((row) => row.proximalLogprobs ?? row.logprobs) }
      : {}),
    values: column((row) => row.values),
    advantages: column((row) => row.advantages),
    returns: column((row) => row.returns),
    actionMask: toColumn(
      toRagged(
        rows.map((row) => row.actionMask),
        Uint8Array,
      ).values,
    ),
    ptx: ptx === undefined ? null : toLanguageRows(ptx),
  };
}

function fromExperienceRows(message: ExperienceRows__Output): { rows: PpoRow[]; ptx?: SftRow[] } {
  const promptLengths = uint32Column(message.promptLengths, "ExperienceRows.prompt_lengths");
  const responseLengths = uint32Column(
    message.responseLengths,
    "ExperienceRows.response_lengths",
    promptLengths.length,
  );
  const interleaved = Uint32Array.from(
    { length: promptLengths.length * 2 },
    (_, i) => (i % 2 === 0 ? promptLengths : responseLengths)[i >> 1],
  );
  const ids = fromRagged(int32Column(message.ids, "ExperienceRows.ids"), interleaved, "ExperienceRows.ids");
  const column = (bytes: Uint8Array, field: string) =>
    fromRagged(float32Column(bytes, field), responseLengths, field);
  const logprobs = column(message.logprobs, "ExperienceRows.logprobs");
  const proximal =
    message._proximalLogprobs === "proximalLogprobs"
      ? column(message.proximalLogprobs as Uint8Array, "ExperienceRows.proximal_logprobs")
      : undefined;
  const values = column(message.values, "ExperienceRows.values");
  const advantages = column(message.advantages, "ExperienceRows.advantages");
  const returns = column(message.returns, "ExperienceRows.returns");
  const actionMask = fromRagged(
    uint8Column(message.actionMask, "ExperienceRows.action_mask"),
    responseLengths,
    "ExperienceRows.action_mask",
  );
  const rows = Array.from(promptLengths, (_, i) => ({
    promptIds: ids[2 * i],
    responseIds: ids[2 * i + 1],
    logprobs: logprobs[i],
    ...(proximal === undefined ? {} : { proximalLogprobs: proximal[i] }),
    values: values[i],
    advantages: advantages[i],
    returns: returns[i],
    actionMask: actionMask[i],
  }));
  return message.ptx === null ? { rows } : { rows, ptx: fromLanguageRows(message.ptx, "ExperienceRows.ptx") };
}

export function toShard({ index, rows }: MicroShard): Shard {
  switch (rows.kind) {
    case "sft":
      return { index, sft: toLanguageRows(rows.rows) };
    case "reward":
      return { index, reward: toPreferenceRows(rows.rows) };
    case "ppo":
      return { index, ppo: toExperienceRows(rows.rows, rows.ptx) };
  }
}

export function fromShard(message: Shard__Output): MicroShard {
  if (message.sft)
    return {
      index: message.index,
      rows: { kind: "sft", rows: fromLanguageRows(message.sft, "LanguageRows") },
    };
  if (message.reward)
    return { index: message.index, rows: { kind: "reward", rows: fromPreferenceRows(message.reward) } };
  if (message.ppo) return { index: message.index, rows: { kind: "ppo", ...fromExperienceRows(message.ppo) } };
  throw protocolError(`Shard ${message.index}: expected sft, reward or ppo rows, got none`);
}
