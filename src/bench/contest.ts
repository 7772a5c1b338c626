/**
 * Two or more programs that do the same work in turn: `a b a b …` in one run, so that whatever else loads the machine
 * falls on all of them. Each is a process of its own that answers one line of JSON per line "go".
 */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { builtFile, packageRoot } from "../shared/paths.js";
import { configError, dataError } from "../shared/errors.js";

/** Numbers and lists of numbers; both sides read the same ones. */
export type SideConfig = Readonly<Record<string, number | string | readonly number[]>> & {
  readonly threads: number;
};

export interface SideCommand {
  /** Name in the result. */
  readonly label: string;
  readonly command: string;
  readonly args: readonly string[];
}

export interface Standing {
  readonly label: string;
  /** Library and version. */
  readonly version: string;
  /** Medians over the rounds, of one repetition. */
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** What a repetition does, in the benchmark's unit (steps, tokens, …). */
  readonly units: number;
  /** Largest resident memory, MiB. */
  readonly peakMb: number;
  /** Other numbers the side told: about its start, and medians of those about its turns. */
  readonly facts: Readonly<Record<string, number>>;
}

interface Measured {
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly units: number;
  readonly peakMb: number;
  readonly facts?: Readonly<Record<string, number>>;
}

/** Our side of a benchmark: src/bench/sides/`side`. */
export function ourSide(side: string, config: SideConfig, label = "troupe"): SideCommand {
  const args = ["--expose-gc", builtFile("src/bench/side-main"), side, JSON.stringify(config)];
  return { label, command: process.execPath, args };
}

/**
 * The peer's side, bench/peers/`script`.py, under the Python of TROUPE_PEER_PYTHON; null without one.
 */
export function peerSide(script: string, config: SideConfig, label = "peer"): SideCommand | null {
  const python = process.env.TROUPE_PEER_PYTHON;
  if (python === undefined || python === "") return null;
  const main = join(packageRoot, "bench", "peers", "peer.py");
  return { label, command: python, args: [main, script, JSON.stringify(config)] };
}

/** The peer once for each number of threads worth trying, one and as many as ours: its fastest counts (`fastestOf`). */
export function peerSides(script: string, config: SideConfig, label = "peer"): SideCommand[] {
  return [...new Set([1, config.threads])]
    .map((threads) => peerSide(script, { ...config, threads }, `${label}, ${threads} threads`))
    .filter((side) => side !== null);
}

/** The standing with the least time per unit; null of none. */
export function fastestOf(standings: readonly Standing[]): Standing | null {
  const secondsOf = ({ seconds, units }: Standing) => seconds / units;
  return standings.reduce<Standing | null>(
    (best, one) => (best === null || secondsOf(one) < secondsOf(best) ? one : best),
    null,
  );
}

export interface ContestOptions {
  /** Measured turns per side. */
  readonly rounds: number;
  /** Turns before those, not counted: memory is touched for the first time, kernels are chosen. */
  readonly warmups: number;
}

/**
 * @returns one standing per side, in the order given
 * @throws {TroupeError} DATA when a side fails
 */
export async function contest(
  commands: readonly SideCommand[],
  { rounds, warmups }: ContestOptions,
): Promise<Standing[]> {
  const sides = commands.map((command) => new Contestant(command));
  try {
    for (const side of sides) await side.ready();
    const measured = sides.map((): Measured[] => []);
    for (let round = 0; round < warmups + rounds; round++) {
      for (const [i, side] of sides.entries()) {
        const result = await side.go();
        if (round >= warmups) measured[i].push(result);
      }
    }
    return sides.map((side, i) => ({
      label: side.label,
      version: side.version,
      seconds: medianOf(measured[i].map((one) => one.seconds)),
      cpuSeconds: medianOf(measured[i].map((one) => one.cpuSeconds)),
      units: measured[i][0].units,
      peakMb: Math.max(...measured[i].map((one) => one.peakMb)),
      facts: { ...side.facts, ...medianFacts(measured[i]) },
    }));
  } finally {
    await Promise.all(sides.map((side) => side.end()));
  }
}

function medianFacts(turns: readonly Measured[]): Record<string, number> {
  const names = Object.keys(turns[0].facts ?? {});
  return Object.fromEntries(names.map((name) => [name, medianOf(turns.map((turn) => turn.facts![name]))]));
}

export function medianOf(values: readonly number[]): number {
  if (values.length === 0) throw configError("a benchmark needs at least one round");
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

class Contestant {
  readonly label: string;
  version = "";
  facts: Readonly<Record<string, number>> = {};
  private readonly child: ChildProcess;
  private readonly lines: AsyncIterator<string>;
  private errors = "";

  constructor({ label, command, args }: SideCommand) {
    this.label = label;
    this.child = spawn(command, args, {
      stdio: ["pipe", "pipe", "pipe"],
      env: process.env,
    });
    this.child.on("error", (error) => (this.errors += error.message));
    this.child.stderr!.on(
      "data",
      (text: Buffer) => (this.errors = (this.errors + text.toString()).slice(-4000)),
    );
    this.lines = createInterface({ input: this.child.stdout! })[Symbol.asyncIterator]();
  }

  async ready(): Promise<void> {
    const { version, facts } = (await this.answer()) as {
      version: string;
      facts?: Readonly<Record<string, number>>;
    };
    this.version = version;
    this.facts = facts ?? {};
  }

  async go(): Promise<Measured> {
    this.child.stdin!.write("go\n");
    return (await this.answer()) as Measured;
  }

  async end(): Promise<void> {
    this.child.stdin!.end();
    const timer = setTimeout(() => this.child.kill("SIGKILL"), EXIT_GRACE_MS);
    if (this.child.exitCode === null && this.child.signalCode === null && this.child.pid !== undefined)
      await once(this.child, "exit");
    clearTimeout(timer);
  }

  /** Lines that are not JSON are a library's chatter. */
  private async answer(): Promise<unknown> {
    for (;;) {
      const { value, done } = await this.lines.next();
      if (done === true)
        throw dataError(`benchmark: the side ${this.label} ended early: ${this.errors.trim()}`);
      if (value.startsWith("{")) return JSON.parse(value) as unknown;
    }
  }
}

/** How long a side may take to stop. */
const EXIT_GRACE_MS = 10_000;
