/**
 * Where the coordinator may be: one address, several of which one leads, or the NATS servers that know.
 *
 *   HOST:PORT            HOST:PORT,HOST2:PORT2            nats://HOST:4222[,HOST2:4222]/RUN
 *
 * A token and a certificate authority for NATS come from files named in TROUPE_NATS_TOKEN_FILE and TROUPE_NATS_CA_FILE.
 */
import { configError, TroupeError } from "../shared/errors.js";

export interface CoordinatorAddresses {
  /** The next address to try. @throws {TroupeError} UNREACHABLE when nobody knows one at this moment */
  next(): Promise<string>;
  /** Whether waiting long for one address would keep the worker from another. */
  readonly hasOthers: boolean;
}

const ADDRESS = /^[^\s,/]+:\d+$/;
const NATS = /^nats:\/\/([^/]+)\/([A-Za-z0-9_-]+)$/;

/** @throws {TroupeError} CONFIG naming the part that is no address */
export function parseCoordinatorAddresses(
  text: string,
  env: NodeJS.ProcessEnv = process.env,
): CoordinatorAddresses {
  if (text.startsWith("nats://")) {
    const match = NATS.exec(text);
    if (match === null)
      throw configError(
        `--coordinator expects nats://HOST:PORT[,HOST:PORT]/RUN (cluster.durable.run), got ${text}`,
      );
    const [, servers, run] = match;
    return natsAddresses(servers.split(","), run, env);
  }
  const addresses = text.split(",").map((part) => part.trim());
  const wrong = addresses.find((address) => !ADDRESS.test(address));
  if (wrong !== undefined)
    throw configError(
      `--coordinator expects HOST:PORT, several with commas, or nats://HOST:PORT/RUN, got ${JSON.stringify(wrong)}`,
    );
  let turn = 0;
  return {
    next: async () => addresses[turn++ % addresses.length],
    hasOthers: addresses.length > 1,
  };
}

function natsAddresses(
  servers: readonly string[],
  run: string,
  env: NodeJS.ProcessEnv,
): CoordinatorAddresses {
  const nats = {
    servers,
    run,
    replicas: 1,
    tokenFile: env.TROUPE_NATS_TOKEN_FILE ?? null,
    caFile: env.TROUPE_NATS_CA_FILE ?? null,
  };
  return {
    hasOthers: true,
    async next() {
      // Loaded only here: most workers are given an address.
      const [{ jetstream }, { Kvm }, { connectNats }, { readHolder }] = await Promise.all([
        import("@nats-io/jetstream"),
        import("@nats-io/kv"),
        import("../coordinator/journal/nats-connection.js"),
        import("../coordinator/standby-lease.js"),
      ]);
      const connection = await connectNats(nats, "troupe worker");
      try {
        const holder = await readHolder(new Kvm(jetstream(connection)), `TROUPE_${run}`).catch(
          (cause: unknown) => {
            throw new TroupeError("UNREACHABLE", `NATS at ${servers.join(", ")} does not answer`, { cause });
          },
        );
        if (holder === undefined || holder.released || holder.grpcAddress === null)
          throw new TroupeError(
            "UNREACHABLE",
            `NATS at ${servers.join(", ")} knows no coordinator of ${run} yet`,
          );
        return holder.grpcAddress;
      } finally {
        await connection.close();
      }
    },
  };
}
