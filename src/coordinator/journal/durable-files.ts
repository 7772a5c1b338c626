/**
 * Files of the run directory that whoever goes on with the run needs: checkpoints, models, current weights, results.
 * With a journal on this machine they are durable where they lie. With one that several machines reach they are kept
 * beside it, so that a coordinator on another machine finds them in its own directory.
 */
export interface DurableFiles {
  /**
   * Resolves once the file, or the folder as it is now, outlives the loss of this machine. A record that relies on it
   * may be written only then.
   * @param path inside the run directory
   * @throws {TroupeError} FENCED when another coordinator has taken over; STORAGE
   */
  keep(path: string): Promise<void>;
  /** The file or folder is needed no more. */
  drop(path: string): Promise<void>;
  /** Ends without waiting for anybody: what is on its way fails. */
  close(): void;
}

/** The disk of this machine, or one that every coordinator of the run mounts, is all there is. */
export const FILES_ON_DISK: DurableFiles = {
  keep: () => Promise.resolve(),
  drop: () => Promise.resolve(),
  close: () => undefined,
};
