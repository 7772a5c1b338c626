/** Finds and opens the coordinator a command talks about. */
import { join } from "node:path";
import type { ControlClient } from "../rpc/control-client.js";
import type { ConnectionOptions } from "./options.js";

/** @throws {TroupeError} CONFIG when it cannot be found, or its token not be read */
export async function connectTo({
  coordinator,
  runDir,
  tokenFile,
}: ConnectionOptions): Promise<ControlClient> {
  const [{ addressOf }, { ControlClient }, { readToken }] = await Promise.all([
    import("../launcher/coordinator-file.js"),
    import("../rpc/control-client.js"),
    import("../rpc/auth.js"),
  ]);
  const address = await addressOf(coordinator, runDir);
  const file = tokenFile ?? (runDir === undefined ? undefined : await tokenFileOfRun(runDir));
  return new ControlClient(address, file === undefined ? undefined : readToken(file));
}

async function tokenFileOfRun(runDir: string): Promise<string | undefined> {
  const { loadConfig } = await import("../config/load.js");
  try {
    const { config } = await loadConfig({ file: join(runDir, "config.yaml") });
    return config.cluster.tokenFile ?? undefined;
  } catch {
    return undefined; // a coordinator started by hand keeps its config elsewhere
  }
}
