/**
 * DIR/dropped.jsonl: every prompt that was given up because something is wrong with it or its answer, one a line. What an
 * iteration leaves open at its end is not among them, nor what was answered and not trained; both are counted
 * (docs/metrics.md).
 */
import { join } from "node:path";
import { openAppendFile, type AppendFile } from "../observability/append-file.js";
import type { ExperienceId, Prompt } from "../rl/types.js";

export class DroppedPrompts {
  private constructor(private readonly file: AppendFile) {}

  /** @throws {TroupeError} STORAGE when the file cannot be made */
  static async open(runDir: string): Promise<DroppedPrompts> {
    return new DroppedPrompts(await openAppendFile(join(runDir, "dropped.jsonl"), { endTornLine: true }));
  }

  /**
   * @param prompt  without tokens when nobody here knows it
   * @param reason  poison, nonfinite, overCapacity (docs/metrics.md)
   * @param failure what the last worker that failed with it said
   */
  note(
    { experienceId, promptIds }: { readonly experienceId: ExperienceId } & Partial<Prompt>,
    reason: string,
    failure?: string,
  ): void {
    const line = {
      time: new Date().toISOString(),
      experienceId,
      reason,
      ...(failure === undefined ? {} : { failure }),
      ...(promptIds === undefined ? {} : { promptIds: [...promptIds] }),
    };
    this.file.append(`${JSON.stringify(line)}\n`);
  }

  /** Idempotent. @throws {TroupeError} STORAGE when a line could not be written */
  close(): Promise<void> {
    return this.file.close();
  }
}
