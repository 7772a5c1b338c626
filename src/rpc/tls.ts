/**
 * TLS between the processes of a run, from PEM files (`troupe certs init` writes them). At least TLS 1.2: Node's floor,
 * which gRPC leaves alone. With a client CA the coordinator also asks every caller for a certificate; the join token
 * is needed all the same, since it says which role the caller has.
 */
import { X509Certificate, createPrivateKey } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { isIP } from "node:net";
import { checkServerIdentity, connect, type ConnectionOptions } from "node:tls";
import * as grpc from "@grpc/grpc-js";
import { configError, TroupeError } from "../shared/errors.js";
import { isLoopback } from "../shared/loopback.js";
import { tokenInterceptor } from "./auth.js";
import { clientChannelOptions } from "./channel-options.js";

/** Paths of the coordinator's PEM files. */
export interface ServerTls {
  readonly cert: string;
  readonly key: string;
  /** Callers must show a certificate this authority signed. */
  readonly clientCa?: string | null;
}

/** Paths of a worker's or tool's PEM files. */
export interface ClientTls {
  /** The authority that signed the coordinator's certificate. */
  readonly ca: string;
  readonly cert?: string | null;
  readonly key?: string | null;
}

/** What a process needs to be let in. */
export interface Access {
  readonly token?: string;
  /** Without it the connection is plaintext. */
  readonly tls?: ClientTls;
  /** Send the token in plaintext to other machines, too. */
  readonly insecure?: boolean;
  /** On top of the usual ones (channel-options.ts). Clients whose options differ do not share a connection. */
  readonly channelOptions?: grpc.ChannelOptions;
}

/** @throws {TroupeError} CONFIG when a file cannot be read, does not parse, has expired, or key and certificate differ */
export function serverCredentials(tls: ServerTls | undefined): grpc.ServerCredentials {
  if (tls === undefined) return grpc.ServerCredentials.createInsecure();
  const { cert, key } = readIdentity(tls.cert, tls.key);
  const clientCa = tls.clientCa ? readCertificate("--tls-client-ca", tls.clientCa) : null;
  return grpc.ServerCredentials.createSsl(
    clientCa,
    [{ cert_chain: cert, private_key: key }],
    clientCa !== null,
  );
}

/**
 * Credentials and options of a client of the coordinator at `address`, "host:port".
 * @throws {TroupeError} CONFIG like `serverCredentials`, or when the token would leave this machine in plaintext
 */
export function clientChannel(
  address: string,
  { token, tls, insecure, channelOptions }: Access,
): { credentials: grpc.ChannelCredentials; options: grpc.ClientOptions } {
  const options = {
    ...clientChannelOptions,
    ...channelOptions,
    interceptors: token === undefined ? [] : [tokenInterceptor(token)],
  };
  const { host } = splitAddress(address);
  if (tls === undefined && token !== undefined && insecure !== true && !isLoopback(host))
    throw configError(
      `the join token would go to ${address} unencrypted: pass --tls-ca FILE (ca.crt of the coordinator's certs directory), or --insecure to accept that on a network you trust`,
    );
  if (tls === undefined) return { credentials: grpc.credentials.createInsecure(), options };
  const { ca, cert, key } = readClientFiles(tls);
  if (isIP(host) === 0)
    return { credentials: grpc.credentials.createSsl(ca, key ?? null, cert ?? null), options };
  // TLS names servers by DNS name only: an IP address is not sent, but still is what the certificate must hold.
  const credentials = grpc.credentials.createSsl(ca, key ?? null, cert ?? null, {
    checkServerIdentity: (_name, certificate) => checkServerIdentity(host, certificate as never),
  });
  return { credentials, options: { ...options, "grpc.ssl_target_name_override": "coordinator" } };
}

/** How long an explanation may take: TCP, the handshake, and the server's first frame or alert. */
const EXPLAIN_MS = 2_000;

/**
 * Why a connection failed, when it is about TLS: gRPC reports most such failures as an unreachable server, and a
 * process would try for a minute what cannot work. Opens one connection of its own.
 *
 * @returns an AUTH error with the next step; undefined when TLS is not the reason
 */
export function explainTlsFailure(
  address: string,
  tls: ClientTls | undefined,
): Promise<TroupeError | undefined> {
  const { host, port } = splitAddress(address);
  const files = tls === undefined ? undefined : readClientFiles(tls);
  const options: ConnectionOptions = {
    host,
    port,
    ALPNProtocols: ["h2"],
    ...(isIP(host) === 0 ? { servername: host } : {}),
    ...(files ?? { rejectUnauthorized: false }),
  };
  return new Promise((resolve) => {
    const socket = connect(options);
    let isSecure = false;
    const finish = (message?: string) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(message === undefined ? undefined : new TroupeError("AUTH", `${address}: ${message}`));
    };
    const timer = setTimeout(() => finish(), EXPLAIN_MS);
    socket.once("secureConnect", () => {
      isSecure = true;
      if (tls === undefined)
        finish("the coordinator uses TLS; pass --tls-ca FILE, the ca.crt of its certs directory");
    });
    // A server that takes us speaks first (HTTP/2 settings); one that does not sends an alert, or just hangs up.
    socket.once("data", () => finish());
    socket.once("error", (error: NodeJS.ErrnoException) =>
      finish(tls && meaningOf(error, host, tls, isSecure)),
    );
    socket.once("close", () => finish(isSecure && tls ? refusedCertificate(tls) : undefined));
  });
}

function meaningOf(
  error: NodeJS.ErrnoException,
  host: string,
  tls: ClientTls,
  isSecure: boolean,
): string | undefined {
  const code = error.code ?? "";
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID")
    return `the coordinator's certificate is not for ${host}; make one with: troupe certs init DIR --host ${host}`;
  if (code === "CERT_HAS_EXPIRED" || code === "CERT_NOT_YET_VALID")
    return `the coordinator's certificate is not valid at this time (${code}); make new ones with: troupe certs init, or set this machine's clock`;
  if (/^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_|INVALID_CA|ERR_TLS_CERT)/.test(code))
    return `the coordinator's certificate is not signed by ${tls.ca} (${code}); pass the ca.crt of the coordinator's certs directory as --tls-ca`;
  if (/WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST/.test(code))
    return "the coordinator answers without TLS; start it with --tls-cert and --tls-key, or drop --tls-ca";
  if (/ALERT/.test(code) || (isSecure && code === "ECONNRESET")) return refusedCertificate(tls);
  return undefined;
}

const refusedCertificate = ({ cert }: ClientTls): string =>
  cert
    ? `the coordinator does not accept the certificate ${cert}; pass a client certificate that its --tls-client-ca signed`
    : "the coordinator asks for a client certificate; pass --tls-cert and --tls-key (client.crt and client.key of its certs directory)";

export function readClientFiles({ ca, cert, key }: ClientTls): { ca: Buffer; cert?: Buffer; key?: Buffer } {
  const authority = readCertificate("--tls-ca", ca);
  if (!cert && !key) return { ca: authority };
  if (!cert || !key) throw configError("--tls-cert and --tls-key belong together; pass both or none");
  return { ca: authority, ...readIdentity(cert, key) };
}

function readIdentity(certFile: string, keyFile: string): { cert: Buffer; key: Buffer } {
  const cert = readCertificate("--tls-cert", certFile);
  const key = readPem("--tls-key", keyFile);
  if (process.platform !== "win32" && (statSync(keyFile).mode & 0o007) !== 0)
    throw configError(`private key ${keyFile} is readable by every user; run: chmod 600 ${keyFile}`);
  let isPair: boolean;
  try {
    isPair = new X509Certificate(cert).checkPrivateKey(createPrivateKey(key));
  } catch (cause) {
    throw configError(`--tls-key ${keyFile}: expected an unencrypted PEM private key`, { cause });
  }
  if (!isPair) throw configError(`--tls-key ${keyFile} is not the key of the certificate ${certFile}`);
  return { cert, key };
}

function readCertificate(option: string, file: string): Buffer {
  const pem = readPem(option, file);
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch (cause) {
    throw configError(
      `${option} ${file}: expected a PEM certificate (make one with: troupe certs init DIR)`,
      {
        cause,
      },
    );
  }
  if (Date.parse(certificate.validTo) < Date.now())
    throw configError(
      `${option} ${file} expired on ${certificate.validTo}; make new ones with: troupe certs init DIR`,
    );
  return pem;
}

function readPem(option: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw configError(`${option} ${file} cannot be read`, { cause });
  }
}

/** @throws {TroupeError} CONFIG unless it is host:port or [IPv6]:port */
export function splitAddress(address: string): { host: string; port: number } {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(address) ?? [];
  if (digits === undefined) throw configError(`expected HOST:PORT, got ${JSON.stringify(address)}`);
  return { host: bracketed ?? plain, port: Number(digits) };
}
