/** What the launcher asks a running coordinator; src/rpc/control-client.ts is the real one. */
import type { ProgressEvent } from "../observability/progress.js";

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

export type ConnectControl = (address: string, token: string | undefined) => Promise<Control>;

/** Over gRPC; loaded only when there is a coordinator to talk to. */
export const connectControl: ConnectControl = async (address, token) => {
  const { ControlClient } = await import("../rpc/control-client.js");
  return new ControlClient(address, token);
};
