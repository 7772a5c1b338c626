/** A file that only grows: appends are queued in order, never block the caller, and are durable after flush(). */
import { mkdir, open, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { storageError } from "../shared/errors.js";

export interface AppendFile {
  readonly path: string;
  /** Queues bytes. After a failed write the file stays as it is and further appends are dropped. */
  append(bytes: string | Uint8Array): void;
  /** Waits for queued bytes and fsyncs. @throws {TroupeError} STORAGE if any write failed */
  flush(): Promise<void>;
  /** Flushes and closes. Idempotent. @throws {TroupeError} STORAGE if any write failed */
  close(): Promise<void>;
}

/**
 * @param options.endTornLine starts on a fresh line when an earlier process died in the middle of one
 * @throws {TroupeError} STORAGE when the file or its folder cannot be made
 */
export async function openAppendFile(
  path: string,
  options: { endTornLine?: boolean } = {},
): Promise<AppendFile> {
  let handle: FileHandle;
  try {
    await mkdir(dirname(path), { recursive: true });
    handle = await open(path, "a+");
    if (options.endTornLine === true && (await endsMidLine(handle))) await handle.appendFile("\n");
  } catch (error) {
    throw storageError(`cannot write ${path}; check that its folder is writable and the disk is not full`, {
      cause: error,
    });
  }

  let pending: (string | Uint8Array)[] = [];
  let failure: unknown;
  let queue = Promise.resolve();
  let closing: Promise<void> | undefined;

  const drain = async () => {
    const batch = pending.map((bytes) => (typeof bytes === "string" ? Buffer.from(bytes) : bytes));
    pending = [];
    if (batch.length === 0 || failure !== undefined) return;
    try {
      await handle.appendFile(Buffer.concat(batch));
    } catch (error) {
      failure = error;
    }
  };
  const report = () => {
    if (failure !== undefined)
      throw storageError(`cannot append to ${path}; is the disk full?`, { cause: failure });
  };
  const flush = async () => {
    queue = queue.then(drain);
    await queue;
    report();
    await handle.sync();
  };

  return {
    path,
    append(bytes) {
      if (closing !== undefined) return;
      pending.push(bytes);
      queue = queue.then(drain);
    },
    flush,
    close() {
      closing ??= flush().finally(() => handle.close());
      return closing;
    },
  };
}

async function endsMidLine(handle: FileHandle): Promise<boolean> {
  const { size } = await handle.stat();
  if (size === 0) return false;
  const last = Buffer.alloc(1);
  await handle.read(last, 0, 1, size - 1);
  return last[0] !== 0x0a;
}
