/**
 * Where the coordinator may be: one address, several of which one leads, or the NATS servers that know.
 *
 *   HOST:PORT            HOST:PORT,HOST2:PORT2            nats://HOST:4222[,HOST2:4222]/RUN
 *
 * The login and a certificate authority for NATS come from files named in TROUPE_NATS_TOKEN_FILE and TROUPE_NATS_CA_FILE.
 * A worker needs no more of NATS than deploy/nats/nats.conf gives it: to read one key, and to hear the answer.
 */
import { configError, TroupeError } from "../shared/errors.js";
import { firstElsewhere } from "../shared/loopback.js";

export interface CoordinatorAddresses {
  /** The next address to try. @throws {TroupeError} UNREACHABLE when nobody knows one at this moment */
  next(): Promise<string>;
  /** Whether waiting long for one address would keep the worker from another. */
  readonly hasOthers: boolean;
}

export interface AddressOptions {
  /** Ask NATS on other machines without TLS, too. */
  readonly insecure?: boolean;
  readonly env?: NodeJS.ProcessEnv;
}

/** Subjects of a worker's own: with those of all it could read what coordinators are answered. */
const INBOX = "_INBOX_WORKER";
const ADDRESS = /^[^\s,/]+:\d+$/;
const NATS = /^nats:\/\/([^/]+)\/([A-Za-z0-9_-]+)$/;

/** @throws {TroupeError} CONFIG naming the part that is no address */
export function parseCoordinatorAddresses(text: string, options: AddressOptions = {}): CoordinatorAddresses {
  if (text.startsWith("nats://")) {
    const match = NATS.exec(text);
    if (match === null)
      throw configError(
        `--coordinator expects nats://HOST:PORT[,HOST:PORT]/RUN (cluster.durable.run), got ${text}`,
      );
    const [, servers, run] = match;
    return natsAddresses(servers.split(","), run, options);
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
  { insecure = false, env = process.env }: AddressOptions,
): CoordinatorAddresses {
  const nats = {
    servers,
    run,
    replicas: 1,
    tokenFile: env.TROUPE_NATS_TOKEN_FILE ?? null,
    caFile: env.TROUPE_NATS_CA_FILE ?? null,
  };
  const elsewhere = firstElsewhere(servers);
  if (elsewhere !== undefined && nats.tokenFile === null)
    throw configError(
      `NATS at ${elsewhere} is on another machine: name a file with its token, or with USER PASSWORD, in TROUPE_NATS_TOKEN_FILE`,
    );
  if (elsewhere !== undefined && nats.caFile === null && !insecure)
    throw configError(
      `NATS at ${elsewhere} is on another machine and the traffic is not encrypted: name the authority of its certificate in TROUPE_NATS_CA_FILE, or pass --insecure to accept that on a network you trust`,
    );
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
      const connection = await connectNats(nats, "troupe worker", INBOX);
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
