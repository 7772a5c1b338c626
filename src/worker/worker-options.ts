import type { ClientTls } from "../rpc/tls.js";

/** What the command line gives both worker roles. */
export interface WorkerOptions {
  /** host:port of the coordinator. */
  readonly coordinator: string;
  readonly tokenFile?: string | null;
  /** Without it the connection is plaintext. */
  readonly tls?: ClientTls;
  /** Send the token in plaintext to other machines, too. */
  readonly insecure?: boolean;
  /** Wanted name, e.g. "rollout-0"; without it the coordinator picks one. */
  readonly workerId?: string;
  /** Address of this process's /metrics and /healthz. @default 127.0.0.1 and a free port */
  readonly httpHost?: string;
  readonly httpPort?: number;
  /** Folder for this process's log file; without it only stderr. */
  readonly logDir?: string;
  /** Workers started on this machine together, this one included. @default it alone */
  readonly together?: Partial<WorkersTogether>;
  readonly signal: AbortSignal;
}

export type WorkersTogether = Readonly<Record<"rollouts" | "learners", number>>;
