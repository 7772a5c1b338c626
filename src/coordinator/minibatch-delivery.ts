/**
 * A learner's part of a minibatch on its way: in pieces, so that neither the size of a message nor the event loop limits
 * how large it may be. Of a learner that reads slowly two pieces are in memory, however many follow.
 */
import { CHUNK_BYTES } from "../rpc/channel-options.js";
import { bytesOfRows, cutIntoPieces, MAX_PART_BYTES } from "../rpc/codec/shard-pieces.js";
import { toShard, type MicroShard } from "../rpc/codec/shard.js";
import type { LearnerDirective } from "../rpc/generated/troupe/v1/LearnerDirective.js";
import type { TrainStep } from "../rpc/generated/troupe/v1/TrainStep.js";
import { configError } from "../shared/errors.js";
import { nextTurn } from "../shared/steps.js";
import type { StreamRegistry } from "./stream-registry.js";

export interface Delivery {
  readonly workerId: string;
  readonly incarnation: number;
  /** What is done with the rows; sent after them, with the last of them. */
  readonly train: Omit<TrainStep, "shards" | "rowsBefore"> & {
    readonly generation: number;
    readonly step: number;
  };
  /** This learner's part of the minibatch. */
  readonly shards: readonly MicroShard[];
  /** Asked before every piece. */
  readonly isWanted: () => boolean;
  /** Columns of one message; a longer row goes alone. */
  readonly pieceBytes: number | undefined;
}

/**
 * @returns false when the learner's stream is gone; true when all was sent, or nobody wants it any more
 * @throws {TroupeError} CONFIG when it is more than a learner takes
 */
export async function deliverMinibatch(
  streams: StreamRegistry<LearnerDirective>,
  { workerId, incarnation, train, shards, isWanted, pieceBytes = CHUNK_BYTES }: Delivery,
): Promise<boolean> {
  const { generation, step } = train;
  const bytes = shards.reduce((sum, { rows }) => sum + bytesOfRows(rows), 0);
  if (bytes > MAX_PART_BYTES)
    throw configError(
      `step ${step}: the rows of ${workerId} are ${bytes} bytes, at most ${MAX_PART_BYTES} go to one learner; ` +
        "set smaller minibatches (ppo.minibatchSize, sft.batchSize, reward.batchSize) or more learners (cluster.learners)",
    );
  let rowsBefore = 0;
  let ahead: MicroShard[] = [];
  /** Settled once the stream has taken the piece before. */
  let taken = Promise.resolve(true);
  const send = async (directive: (rows: MicroShard[]) => LearnerDirective): Promise<boolean> => {
    await nextTurn(); // packing and writing a piece takes some milliseconds of the loop
    if (!(await taken)) return false;
    if (!isWanted()) return true;
    taken = streams.deliver(workerId, incarnation, directive(ahead));
    return true;
  };
  for (const piece of cutIntoPieces(shards, pieceBytes)) {
    if (ahead.length > 0) {
      const part = train.round?.index ?? 0;
      const isThere = await send((rows) => ({
        rows: { generation, step, part, shards: rows.map(toShard) },
      }));
      if (!isThere) return false;
      if (!isWanted()) return true;
      rowsBefore += 1;
    }
    ahead = piece;
  }
  const isThere = await send((rows) => ({ train: { ...train, rowsBefore, shards: rows.map(toShard) } }));
  return isThere && (await taken);
}
