/** Rows that come ahead of the step they are for; of one minibatch at a time. */
import type { StepRows__Output } from "../rpc/generated/troupe/v1/StepRows.js";
import type { TrainStep__Output } from "../rpc/generated/troupe/v1/TrainStep.js";
import { bytesOfRows, joinPieces, MAX_PART_BYTES } from "../rpc/codec/shard-pieces.js";
import { fromShard, type MicroShard } from "../rpc/codec/shard.js";
import { protocolError } from "../shared/errors.js";

/** Which minibatch: `part` counts within a round. */
interface RowsKey {
  readonly generation: number;
  readonly step: number;
  readonly part: number;
}

export class RowAssembly {
  private key: RowsKey | undefined;
  private pieces: MicroShard[] = [];
  private messages = 0;
  private bytes = 0;

  /** @param maxBytes of columns that are kept */
  constructor(private readonly maxBytes = MAX_PART_BYTES) {}

  /**
   * Those of a minibatch that was given up meanwhile are dropped.
   * @throws {TroupeError} PROTOCOL when they are too many, or do not decode
   */
  add({ generation, step, part, shards }: StepRows__Output): void {
    if (!this.isOf({ generation, step, part })) this.clear();
    this.key = { generation, step, part };
    this.messages += 1;
    for (const shard of shards) {
      const piece = fromShard(shard);
      this.bytes += bytesOfRows(piece.rows);
      if (this.bytes > this.maxBytes)
        throw protocolError(
          `StepRows: expected at most ${this.maxBytes} bytes of rows for one step, got more`,
        );
      this.pieces.push(piece);
    }
  }

  /**
   * The shards of a step: those that came ahead, then its own. Nothing is kept.
   * @throws {TroupeError} PROTOCOL when some of them are missing
   */
  take({ generation, step, round, rowsBefore, shards }: TrainStep__Output): MicroShard[] {
    const isOurs = this.isOf({ generation, step, part: round?.index ?? 0 });
    const pieces = isOurs ? this.pieces : [];
    const messages = isOurs ? this.messages : 0;
    this.clear();
    if (messages !== rowsBefore)
      throw protocolError(
        `TrainStep ${step}: expected ${rowsBefore} messages of rows before it, got ${messages}`,
      );
    return joinPieces([...pieces, ...shards.map(fromShard)]);
  }

  private isOf({ generation, step, part }: RowsKey): boolean {
    return this.key?.generation === generation && this.key.step === step && this.key.part === part;
  }

  private clear(): void {
    this.key = undefined;
    this.pieces = [];
    this.messages = 0;
    this.bytes = 0;
  }
}
