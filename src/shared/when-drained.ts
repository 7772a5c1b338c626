import type { Writable } from "node:stream";

/** Resolves when the stream takes more, or is gone. Leaves no listener behind, however often it is asked. */
export function whenDrained(stream: Pick<Writable, "on" | "off">): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      stream.off("drain", done);
      stream.off("close", done);
      resolve();
    };
    stream.on("drain", done);
    stream.on("close", done);
  });
}
