/** What the launcher asks a running coordinator; src/rpc/control-client.ts is the real one. */
import type { Config } from "../config/schema.js";
import type { ProgressEvent } from "../observability/progress.js";
import type { Access, ClientTls } from "../rpc/tls.js";

export interface ControlStatus {
  readonly stage: string;
  /** Wanted processes by role name. */
  readonly desired: Readonly<Record<string, number>>;
}

export interface Control {
  status(): Promise<ControlStatus>;
  /** Everything so far (bounded), then live, until the run ends or `signal` aborts. */
  watch(signal: AbortSignal): AsyncIterable<ProgressEvent>;
  close(): void;
}

export type ConnectControl = (address: string, access: Access) => Promise<Control>;

/** Over gRPC; loaded only when there is a coordinator to talk to. */
export const connectControl: ConnectControl = async (address, access) => {
  const { ControlClient } = await import("../rpc/control-client.js");
  return new ControlClient(address, access);
};

/**
 * What a tool of this machine shows the coordinator.
 * @throws {TroupeError} CONFIG when the token file cannot be used
 */
export async function controlAccess(
  tokenFile: string | null,
  tls: ClientTls | undefined,
  insecure: boolean,
): Promise<Access> {
  if (tokenFile === null) return { tls };
  const { JoinTokens } = await import("../rpc/auth.js");
  return { token: JoinTokens.read(tokenFile).forRole("control"), tls, insecure };
}

/** How processes of this machine reach the coordinator of a config that names TLS files for them. */
export const clientTlsOfConfig = ({ tls }: Config["cluster"]): ClientTls | undefined =>
  tls.ca === null ? undefined : { ca: tls.ca, cert: tls.clientCert, key: tls.clientKey };
