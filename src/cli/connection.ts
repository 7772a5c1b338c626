/** Finds and opens the coordinator a command talks about. */
import { join } from "node:path";
import type { ControlClient } from "../rpc/control-client.js";
import type { Config } from "../config/schema.js";
import { clientTlsOf, type ConnectionOptions } from "./options.js";

/** @throws {TroupeError} CONFIG when it cannot be found, or its token not be read */
export async function connectTo(options: ConnectionOptions): Promise<ControlClient> {
  const { coordinator, runDir } = options;
  const [{ addressOf }, { ControlClient }, { clientTlsOfConfig, controlAccess }] = await Promise.all([
    import("../launcher/coordinator-file.js"),
    import("../rpc/control-client.js"),
    import("../launcher/control.js"),
  ]);
  const address = await addressOf(coordinator, runDir);
  const cluster = runDir === undefined ? undefined : await clusterOfRun(runDir);
  const tls = clientTlsOf(options) ?? (cluster && clientTlsOfConfig(cluster));
  return new ControlClient(
    address,
    await controlAccess(options.tokenFile ?? cluster?.tokenFile ?? null, tls),
  );
}

async function clusterOfRun(runDir: string): Promise<Config["cluster"] | undefined> {
  const { loadConfig } = await import("../config/load.js");
  try {
    const { config } = await loadConfig({ file: join(runDir, "config.yaml") });
    return config.cluster;
  } catch {
    return undefined; // a coordinator started by hand keeps its config elsewhere
  }
}
