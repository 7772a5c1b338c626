/** What the views write to: colours when wanted, and one line at the bottom that can be redrawn. */
import pc from "picocolors";

export interface TextStream {
  write(text: string): unknown;
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export type Colors = ReturnType<typeof pc.createColors>;

/** https://no-color.org: any non-empty NO_COLOR turns colours off; FORCE_COLOR turns them on without a terminal. */
export function colorsFor(stream: TextStream, env: NodeJS.ProcessEnv = process.env): Colors {
  const isForced = env.FORCE_COLOR !== undefined && env.FORCE_COLOR !== "" && env.FORCE_COLOR !== "0";
  const isRefused = env.NO_COLOR !== undefined && env.NO_COLOR !== "";
  return pc.createColors(isForced || (stream.isTTY === true && !isRefused && env.TERM !== "dumb"));
}

/** Lines above, one live line below. Without a terminal there is no live line. */
export class Terminal {
  readonly isLive: boolean;
  #liveLine = "";

  constructor(
    readonly stream: TextStream,
    env: NodeJS.ProcessEnv = process.env,
  ) {
    this.isLive = stream.isTTY === true && env.TERM !== "dumb" && !env.CI;
  }

  get columns(): number {
    return this.stream.columns ?? 100;
  }

  /** Writes a line above the live one. */
  line(text: string): void {
    this.stream.write(this.#liveLine === "" ? `${text}\n` : `\r\u001b[2K${text}\n${this.#liveLine}`);
  }

  /** Replaces the live line; does nothing without a terminal. */
  live(text: string): void {
    if (!this.isLive || text === this.#liveLine) return;
    this.#liveLine = text;
    this.stream.write(`\r\u001b[2K${text}`);
  }

  /** Removes the live line. */
  clear(): void {
    if (this.#liveLine === "") return;
    this.#liveLine = "";
    this.stream.write("\r\u001b[2K");
  }
}

/** Cuts to a width on screen, counting code points; `text` must hold no colour codes. */
export function fit(text: string, width: number): string {
  const characters = [...text];
  return characters.length <= width ? text : `${characters.slice(0, Math.max(0, width - 1)).join("")}…`;
}
