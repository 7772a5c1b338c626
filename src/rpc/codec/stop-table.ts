/** The stop strings of a rollout task. */
import type { StopTable } from "../../data/stop-table.js";
import { protocolError } from "../../shared/errors.js";
import type { StopTable as StopTableMessage, StopTable__Output } from "../generated/troupe/v1/StopTable.js";
import { int32Column, toColumn } from "./columns.js";

export function toStopTable({ states, next, tokenIds, classes }: StopTable): StopTableMessage {
  return { states, next: toColumn(next), tokenIds: toColumn(tokenIds), classes: toColumn(classes) };
}

/** @throws {TroupeError} PROTOCOL when a class or a state does not exist */
export function fromStopTable(message: StopTable__Output): StopTable {
  const { states } = message;
  const next = int32Column(message.next, "StopTable.next");
  const tokenIds = int32Column(message.tokenIds, "StopTable.token_ids");
  const classes = int32Column(message.classes, "StopTable.classes", tokenIds.length);
  const classCount = next.length / states;
  if (states < 2 || !Number.isInteger(classCount) || classCount < 1)
    throw protocolError(`StopTable.next: ${next.length} entries are no rows of ${states} states, at least 2`);
  if (!next.every((state) => state >= 0 && state < states))
    throw protocolError(`StopTable.next: expected states from 0 to ${states - 1}`);
  if (!classes.every((one) => one >= 0 && one < classCount))
    throw protocolError(`StopTable.classes: expected classes from 0 to ${classCount - 1}`);
  return { states, next, tokenIds, classes };
}
