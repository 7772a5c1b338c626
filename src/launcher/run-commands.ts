/** The command lines of a run's processes: `troupe coordinator | rollout | learner` with everything they need. */
import { join, resolve } from "node:path";
import type { ClientTls } from "../rpc/tls.js";
import { packageRoot } from "../shared/paths.js";
import type { ChildCommand } from "./child.js";
import { gpuOf } from "./gpus.js";
import type { ProcessRole, WorkerRole } from "../shared/roles.js";

export interface RunCommandOptions {
  /** Folder for one log per process. */
  readonly logDir: string;
  readonly tokenFile: string | null;
  readonly tls?: ClientTls;
  /** The token may go to other machines in plaintext. */
  readonly insecure?: boolean;
  /** Device numbers; empty = leave the environment alone. */
  readonly gpus: readonly number[];
  /** host:port workers connect to; asked at every start, since a coordinator that restarts may listen elsewhere. */
  readonly coordinatorAddress: () => string;
  /** Arguments of the coordinator after `troupe coordinator`, for the given restart. */
  readonly coordinatorArgs: (restarts: number) => readonly string[];
  /** What a worker calls itself in the run. @default its local name, e.g. "rollout-0" */
  readonly workerName?: (name: string) => string;
  /** Workers that a coordinator elsewhere must know are on this machine together. @default it is not told */
  readonly together?: Readonly<Record<WorkerRole, number>>;
  readonly env?: NodeJS.ProcessEnv;
}

export const troupeBin = join(packageRoot, "bin", "troupe.mjs");

export function runCommand(
  options: RunCommandOptions,
  role: ProcessRole,
  index: number,
  restarts: number,
): ChildCommand {
  const name = `${role}-${index}`;
  const base = {
    name,
    file: process.execPath,
    logPath: join(options.logDir, `${name}.log`),
    env: childEnvironment(options.env ?? process.env),
  };
  if (role === "coordinator")
    return { ...base, args: [troupeBin, role, ...options.coordinatorArgs(restarts)] };
  const gpus =
    options.gpus.length === 0 ? {} : { CUDA_VISIBLE_DEVICES: String(gpuOf(role, index, options.gpus)) };
  const token = options.tokenFile === null ? [] : ["--token-file", options.tokenFile];
  return {
    ...base,
    env: { ...base.env, ...gpus },
    args: [
      troupeBin,
      role,
      "--coordinator",
      options.coordinatorAddress(),
      "--worker-id",
      options.workerName?.(name) ?? name,
      "--log-dir",
      options.logDir,
      ...token,
      ...tlsArguments(options.tls),
      ...(options.insecure === true ? ["--insecure"] : []),
      ...togetherArguments(options.together),
    ],
  };
}

function tlsArguments(tls: ClientTls | undefined): string[] {
  if (tls === undefined) return [];
  const client = tls.cert && tls.key ? ["--tls-cert", resolve(tls.cert), "--tls-key", resolve(tls.key)] : [];
  return ["--tls-ca", resolve(tls.ca), ...client];
}

function togetherArguments(together: RunCommandOptions["together"]): string[] {
  if (together === undefined) return [];
  return ["--host-rollouts", String(together.rollout), "--host-learners", String(together.learner)];
}

/** Config variables are already in the config file the coordinator gets; read again they would outrank `--set`. */
function childEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const kept = Object.entries(env).filter(([name]) => !name.startsWith("TROUPE__"));
  return { ...Object.fromEntries(kept), TROUPE_SKIP_BUILD: "1" };
}
