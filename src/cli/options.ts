/** Options that several commands share, and what they mean. */
import { InvalidArgumentError, Option, type Command } from "commander";
import type { LoadedConfig } from "../config/load.js";
import type { ClientTls } from "../rpc/tls.js";
import { configError } from "../shared/errors.js";

export const wholeNumber =
  (minimum: number, maximum = Number.MAX_SAFE_INTEGER) =>
  (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < minimum || value > maximum) {
      const range =
        maximum === Number.MAX_SAFE_INTEGER ? `of at least ${minimum}` : `from ${minimum} to ${maximum}`;
      throw new InvalidArgumentError(`Expected a whole number ${range}.`);
    }
    return value;
  };

export const positiveNumber = (text: string): number => {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value) || value <= 0)
    throw new InvalidArgumentError("Expected a number above 0.");
  return value;
};

/** For options that may be repeated. */
export const collect = (value: string, previous: string[] = []): string[] => [...previous, value];

export interface ConfigOptions {
  readonly set?: string[];
}

export const addConfigOptions = (command: Command): Command =>
  command
    .argument("<config>", "YAML file; see docs/configuration.md")
    .option("--set <a.b=value>", "set one field, the value in YAML; may be repeated", collect);

export interface RunOptions extends ConfigOptions {
  readonly runDir?: string;
  readonly resume?: "auto";
  readonly allowDrift?: boolean;
  readonly rollouts?: number;
  readonly learners?: number;
  readonly seed?: number;
  readonly gpus?: string;
  readonly maxRestarts: number;
}

/** Options of every command that runs a whole fleet on this machine. */
export const addRunOptions = (command: Command): Command =>
  command
    .option("--run-dir <dir>", "folder for everything the run writes (default: runs/<name>-<time>)")
    .addOption(resumeOption())
    .addOption(allowDriftOption())
    .option("--rollouts <n>", "rollout processes", wholeNumber(0, 4096))
    .option("--learners <n>", "learner processes", wholeNumber(0, 4096))
    .option("--seed <n>", "seed of everything random", wholeNumber(0, 4_294_967_295))
    .option("--gpus <list>", "GPU numbers to spread the workers over, e.g. 0,1")
    .option(
      "--max-restarts <n>",
      "restarts of one role within 10 min before the run fails",
      wholeNumber(0),
      10,
    );

export const allowDriftOption = (): Option =>
  new Option("--allow-drift", "continue a run although settings that change results differ");

export const resumeOption = (): Option =>
  new Option("--resume <mode>", "auto: continue the run that the folder holds, if it holds one").choices([
    "auto",
  ]);

/** The config fields that the flags of a run command set. */
export const configFlags = ({ rollouts, learners, seed }: RunOptions): Record<string, unknown> => ({
  "cluster.rollouts": rollouts,
  "cluster.learners": learners,
  seed,
});

/** How a worker or tool gets in: the join token, and what TLS needs. */
export interface AccessOptions {
  readonly tokenFile?: string;
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly insecure?: boolean;
}

export const addAccessOptions = (command: Command): Command =>
  command
    .option("--token-file <file>", "file with the join token, or a line `ROLE TOKEN` for each role")
    .option("--tls-ca <file>", "connect with TLS: the authority that signed the coordinator's certificate")
    .option("--tls-cert <file>", "client certificate, when the coordinator asks for one")
    .option("--tls-key <file>", "its private key")
    .option("--insecure", "send the token to another machine without TLS, on a network you trust");

/** @throws {TroupeError} CONFIG for a client certificate without --tls-ca */
export function clientTlsOf({ tlsCa, tlsCert, tlsKey }: AccessOptions): ClientTls | undefined {
  if (tlsCa !== undefined) return { ca: tlsCa, cert: tlsCert, key: tlsKey };
  if (tlsCert !== undefined || tlsKey !== undefined)
    throw configError(
      "--tls-cert and --tls-key need --tls-ca, the authority that signed the coordinator's certificate",
    );
  return undefined;
}

export interface ConnectionOptions extends AccessOptions {
  readonly coordinator?: string;
  readonly runDir?: string;
}

export const addConnectionOptions = (command: Command): Command =>
  addAccessOptions(
    command
      .option("--coordinator <host:port>", "gRPC address of the coordinator")
      .option("--run-dir <dir>", "folder of the run, to find its coordinator"),
  );

/** Reads a config for a command; `environment` is this process's. */
export async function loadForCommand(
  file: string,
  { set }: ConfigOptions,
  flags: Readonly<Record<string, unknown>> = {},
): Promise<LoadedConfig> {
  const { loadConfig } = await import("../config/load.js");
  return loadConfig({ file, sets: set, env: process.env, flags });
}
