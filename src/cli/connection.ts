/** Finds and opens the coordinator a command talks about. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { ControlClient } from "../rpc/control-client.js";
import type { Config } from "../config/schema.js";
import { TroupeError } from "../shared/errors.js";
import { clientTlsOf, type ConnectionOptions } from "./options.js";

/** @throws {TroupeError} CONFIG when it cannot be found, or its token not be read */
async function connectTo(options: ConnectionOptions): Promise<ControlClient> {
  const { coordinator, runDir } = options;
  const [{ addressOf }, { ControlClient }, { clientTlsOfConfig, controlAccess }] = await Promise.all([
    import("../launcher/find-coordinator.js"),
    import("../rpc/control-client.js"),
    import("../launcher/control.js"),
  ]);
  const address = await addressOf(coordinator, runDir);
  const cluster = runDir === undefined ? undefined : await clusterOfRun(runDir);
  const tls = clientTlsOf(options) ?? (cluster && clientTlsOfConfig(cluster));
  return new ControlClient(
    address,
    await controlAccess(
      options.tokenFile ?? cluster?.tokenFile ?? null,
      tls,
      options.insecure ?? cluster?.insecure ?? false,
    ),
  );
}

/**
 * Asks the coordinator that the options name.
 * @throws {TroupeError} UNREACHABLE saying what became of the run, as far as its directory tells
 */
export async function askCoordinator<T>(
  options: ConnectionOptions,
  ask: (control: ControlClient) => Promise<T>,
): Promise<T> {
  const control = await connectTo(options);
  try {
    return await ask(control);
  } catch (error) {
    const { runDir } = options;
    if (!(error instanceof TroupeError) || error.code !== "UNREACHABLE" || runDir === undefined) throw error;
    const summary = join(runDir, "summary.json");
    const fate = existsSync(summary)
      ? `the run is over, its results are in ${summary}`
      : `if the run was stopped, --run-dir ${runDir} --resume auto continues it`;
    throw new TroupeError("UNREACHABLE", `${error.message}; ${fate}`);
  } finally {
    control.close();
  }
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
