/**
 * One file in, the three stages' training and held-out rows out:
 *
 *   read rows ─► render chats ─► split by phase ─► tokenize ─► drop what does not fit (counted) ─► rows of each stage
 *
 * Rows of a phase come in the split's shuffled order. Every row of the file is used once or counted under one reason.
 */
import { resolve } from "node:path";
import { dataError } from "../shared/errors.js";
import { renderChatRows } from "./chat-rows.js";
import { PromptTemplate } from "./prompt-template.js";
import { readRows, type DataConfig } from "./rows.js";
import { splitPhases } from "./split.js";
import {
  makePhaseSkips,
  tokenizeRows,
  toPreferencePair,
  toPromptRow,
  toSftRow,
  type PhaseSkips,
  type TokenizedRow,
} from "./tokenized-rows.js";
import {
  countSkip,
  PHASES,
  type DataReport,
  type Held,
  type PhaseName,
  type PreferencePair,
  type PreferenceRow,
  type PromptRow,
  type SftRow,
  type SkipCounts,
  type SkipReason,
  type TextTokenizer,
} from "./types.js";

export interface RlhfData {
  readonly sft: Held<SftRow>;
  readonly reward: Held<PreferencePair>;
  readonly ppo: Held<PromptRow>;
  readonly report: DataReport;
}

export interface LoadOptions {
  /** `sft.lossOn` @default "answer" */
  readonly lossOn?: "answer" | "all";
  readonly signal?: AbortSignal;
}

type Chosen = TokenizedRow & { chosen: Int32Array };
type Pair = Chosen & { rejected: Int32Array };

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const listSkips = (skips: SkipCounts): string =>
  Object.entries(skips)
    .map(([reason, count]) => `${reason} ${count}`)
    .join(", ");

function nothingLeft(
  phase: PhaseName,
  data: DataConfig,
  rows: number,
  assigned: number,
  lost: SkipCounts,
  skips: PhaseSkips,
): Error {
  const share = data.split[PHASES.indexOf(phase)];
  const total = data.split.reduce((sum, part) => sum + part, 0);
  const advice: string[] = [];
  if (assigned < 2) advice.push("raise its share in data.split or give more rows");
  if (skips.longPromptTokens.length > 0) {
    advice.push(
      `raise data.maxPromptTokens from ${data.maxPromptTokens} (half of the dropped prompts have at most ${median(skips.longPromptTokens)} tokens)`,
    );
  }
  if (skips.longAnswerTokens.length > 0) {
    advice.push(
      `raise data.maxResponseTokens from ${data.maxResponseTokens} (half of the dropped answers have at most ${median(skips.longAnswerTokens)} tokens with eos)`,
    );
  }
  const reasons = new Set([...Object.keys(skips.counts), ...Object.keys(lost)]) as Set<SkipReason>;
  if (reasons.has("no-chosen")) advice.push("name the column of good answers in data.columns.chosen");
  if (reasons.has("no-rejected"))
    advice.push("give rejected answers (data.columns.rejected), or set reward.path to a ready reward model");
  if (advice.length === 0) advice.push("look at these rows in the file");
  const unreadable = listSkips(lost);
  return dataError(
    `no training rows left for ${phase}: ${rows} rows × share ${share}/${total} = ${assigned} rows; dropped: ` +
      `${listSkips(skips.counts) || "none"}${unreadable === "" ? "" : `; already lost while reading the file: ${unreadable}`}. ` +
      `To mend it, ${advice.join(", or ")} (${resolve(data.path)})`,
  );
}

function summarize(report: Omit<DataReport, "summary">): string {
  const used = PHASES.map(
    (name) => `${name} ${report.used[name] - report.evalRows[name]} + ${report.evalRows[name]} held out`,
  );
  const skips = listSkips(report.skipped);
  return `${report.rows} rows (${report.format}): ${used.join(", ")}; skipped: ${skips || "none"}`;
}

/**
 * Loads, splits and tokenizes the data of a run.
 * @param data   `config.data`
 * @param seed   `config.seed`; with `data.split` it fixes which rows each phase gets
 * @param stages phases whose rows are wanted; the others' rows stay untouched ("stage-not-run"), so that a run of one
 *   stage never sees another's data
 * @throws {TroupeError} DATA (file, columns, malformed row, nothing left for a wanted phase) or CONFIG (template, shares)
 */
export async function loadRlhfData(
  data: DataConfig,
  seed: number,
  stages: readonly PhaseName[],
  tokenizer: TextTokenizer,
  options: LoadOptions = {},
): Promise<RlhfData> {
  const { lossOn = "answer", signal } = options;
  const template = new PromptTemplate(data.promptTemplate);
  const read = await readRows(data, signal);
  const skipped = read.skipped;
  const rows = [...read.textRows, ...(await renderChatRows(read.chatRows, tokenizer, skipped))];
  const lostWhileReading = { ...skipped };
  const byIndex = new Map<number, PreferenceRow>(rows.map((row) => [row.index, row]));
  const parts = splitPhases({
    rows: read.rowCount,
    shares: data.split,
    evalFraction: data.evalFraction,
    seed,
  });

  const held = {} as Record<PhaseName, Held<TokenizedRow>>;
  for (const phase of PHASES) {
    const pick = (indices: Int32Array): PreferenceRow[] =>
      [...indices].flatMap((index) => byIndex.get(index) ?? []);
    const part = { train: pick(parts[phase].train), eval: pick(parts[phase].eval) };
    if (!stages.includes(phase)) {
      const idle = part.train.length + part.eval.length;
      if (idle > 0) countSkip(skipped, "stage-not-run", idle);
      held[phase] = { train: [], eval: [] };
      continue;
    }
    const skips = makePhaseSkips();
    const tokenize = (picked: PreferenceRow[]) =>
      tokenizeRows(picked, phase, template, tokenizer, data, skips);
    held[phase] = { train: await tokenize(part.train), eval: await tokenize(part.eval) };
    signal?.throwIfAborted();
    if (held[phase].train.length === 0) {
      const assigned = parts[phase].train.length + parts[phase].eval.length;
      throw nothingLeft(phase, data, read.rowCount, assigned, lostWhileReading, skips);
    }
    for (const [reason, count] of Object.entries(skips.counts))
      countSkip(skipped, reason as SkipReason, count);
  }

  const counts = (of: (part: Held<TokenizedRow>) => number) =>
    Object.fromEntries(PHASES.map((phase) => [phase, of(held[phase])])) as Record<PhaseName, number>;
  const used = PHASES.flatMap((phase) => [...held[phase].train, ...held[phase].eval]);
  const facts = {
    path: resolve(data.path),
    format: read.format,
    rows: read.rowCount,
    used: counts((part) => part.train.length + part.eval.length),
    evalRows: counts((part) => part.eval.length),
    skipped,
    duplicatePrompts: used.length - new Set(used.map((row) => row.promptText)).size,
  };
  const sftRow = (row: TokenizedRow): SftRow => toSftRow(row as Chosen, lossOn);
  const pair = (row: TokenizedRow): PreferencePair => toPreferencePair(row as Pair);
  const firstEval = held.ppo.train.length;
  return {
    sft: { train: held.sft.train.map(sftRow), eval: held.sft.eval.map(sftRow) },
    reward: { train: held.reward.train.map(pair), eval: held.reward.eval.map(pair) },
    ppo: {
      train: held.ppo.train.map((row, i) => toPromptRow(row, i)),
      eval: held.ppo.eval.map((row, i) => toPromptRow(row, firstEval + i)),
    },
    report: { ...facts, summary: summarize(facts) },
  };
}
