/**
 * Where a sequence's score is read, and which positions a preference pair is compared at. Token ids only.
 *
 * @see DeepSpeedExamples 83757d9c, dschat/utils/model/reward_model.py (`forward`, `forward_value`)
 */
import { dataError } from "../shared/errors.js";

export interface PadRule {
  readonly padId: number;
  /** Pad ids that every row starts with (OPT: 1); they do not end it. */
  readonly numPaddingAtBeginning: number;
}

export interface PairSpan {
  /** One past the last token of the chosen answer; its score is read at chosenEnd − 1. */
  readonly chosenEnd: number;
  readonly rejectedEnd: number;
  /** Compared positions: start ≤ t < end. */
  readonly start: number;
  readonly end: number;
}

/**
 * The divergent span of a pair, as DeepSpeed-Chat finds it.
 *
 *   ends   first pad after the leading ones, else `width`
 *   start  first position where the ids differ
 *   end    the later of both ends: pad positions of the shorter answer are inside
 *
 * Identical rows are compared at the last position only (`width − 1`), where the loss is ln 2.
 *
 * @param chosen   `[≤ width]` ids; positions past the row's end count as pad
 * @param rejected `[≤ width]`
 * @param width    padded row length
 * @throws {TroupeError} DATA when the rows differ at position 0: a pair must share its prompt
 */
export function pairSpan(chosen: Int32Array, rejected: Int32Array, width: number, pad: PadRule): PairSpan {
  const chosenEnd = rowEnd(chosen, width, pad);
  const start = firstDifference(chosen, rejected, width, pad.padId);
  if (start === null) return { chosenEnd, rejectedEnd: chosenEnd, start: width - 1, end: width };
  if (start === 0)
    throw dataError("preference pair: chosen and rejected differ at token 0; they must share a prompt");
  const rejectedEnd = rowEnd(rejected, width, pad);
  return { chosenEnd, rejectedEnd, start, end: Math.max(chosenEnd, rejectedEnd) };
}

function rowEnd(ids: Int32Array, width: number, { padId, numPaddingAtBeginning }: PadRule): number {
  let pads = 0;
  for (let t = 0; t < width; t++) {
    if (t < ids.length && ids[t] !== padId) continue;
    if (pads === numPaddingAtBeginning) return t;
    pads++;
  }
  return width;
}

function firstDifference(a: Int32Array, b: Int32Array, width: number, padId: number): number | null {
  for (let t = 0; t < width; t++) {
    if ((t < a.length ? a[t] : padId) !== (t < b.length ? b[t] : padId)) return t;
  }
  return null;
}

/**
 * Position whose value is the sequence's score: the last token, or with `padId` the token before the first pad at
 * or after the prompt (so an EOS that equals the pad id is not scored).
 *
 * @param ids          `[P + R]`
 * @param promptTokens P; DeepSpeed-Chat requires more than 1
 */
export function scorePosition(ids: Int32Array, promptTokens: number, padId: number | null): number {
  const firstPad = padId === null ? -1 : ids.indexOf(padId, promptTokens);
  return (firstPad === -1 ? ids.length : firstPad) - 1;
}
