import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import * as grpc from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ControlClient } from "../../../src/rpc/control-client.js";
import { writeCertificates } from "../../../src/rpc/certificate-files.js";
import {
  clientChannel,
  explainTlsFailure,
  serverCredentials,
  splitAddress,
  type ClientTls,
} from "../../../src/rpc/tls.js";
import { RUN_ID, RawClient, startRealCoordinator, type RealCoordinator } from "./real-coordinator.js";

let folder: string;
let plain: RealCoordinator;
let secure: RealCoordinator;
let mutual: RealCoordinator;
const file = (name: string) => join(folder, name);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "troupe-tls-"));
  const now = new Date();
  await writeCertificates(file("a"), { hosts: [], days: 2, now });
  await writeCertificates(file("b"), { hosts: [], days: 2, now });
  const identity = { cert: file("a/server.crt"), key: file("a/server.key") };
  plain = await startRealCoordinator();
  secure = await startRealCoordinator({ tls: identity });
  mutual = await startRealCoordinator({ tls: { ...identity, clientCa: file("a/ca.crt") } });
});

afterAll(async () => {
  for (const coordinator of [plain, secure, mutual]) await coordinator?.close();
  rmSync(folder, { recursive: true });
});

async function status(address: string, tls?: ClientTls): Promise<string> {
  const client = new ControlClient(address, { tls });
  try {
    return (await client.status()).runId;
  } finally {
    client.close();
  }
}

const trust = (): ClientTls => ({ ca: file("a/ca.crt") });
const identity = (from: string, name = "client"): ClientTls => ({
  ca: file("a/ca.crt"),
  cert: file(`${from}/${name}.crt`),
  key: file(`${from}/${name}.key`),
});

describe("who gets in", () => {
  test("a client that knows the authority, by address and by name", async () => {
    expect(await status(secure.address, trust())).toBe(RUN_ID);
    expect(await status(secure.address.replace("127.0.0.1", "localhost"), trust())).toBe(RUN_ID);
  });

  test("with a client authority, only who has a client certificate of it", async () => {
    expect(await status(mutual.address, identity("a"))).toBe(RUN_ID);
    await expect(status(mutual.address, trust())).rejects.toMatchObject({
      code: "AUTH",
      message: expect.stringMatching(
        /asks for a client certificate; pass --tls-cert and --tls-key/,
      ) as string,
    });
    for (const wrong of [identity("b"), identity("a", "server")]) {
      await expect(status(mutual.address, wrong)).rejects.toMatchObject({
        code: "AUTH",
        message: expect.stringMatching(
          /does not accept the certificate .*client certificate that its/,
        ) as string,
      });
    }
  });

  test("no one who distrusts the coordinator's authority", async () => {
    await expect(status(secure.address, { ca: file("b/ca.crt") })).rejects.toMatchObject({
      code: "AUTH",
      message: expect.stringMatching(/not signed by .*b.ca\.crt.*pass the ca\.crt/) as string,
    });
  });

  test("no one who asked for another address than the certificate is for", async () => {
    const port = splitAddress(secure.address).port;
    const { credentials, options } = clientChannel(`127.0.0.2:${port}`, { tls: trust() });
    // The certificate names 127.0.0.1; the same server under an address it does not name must be refused.
    const client = new RawClient(secure.address, undefined, credentials, {
      "grpc.ssl_target_name_override": options["grpc.ssl_target_name_override"],
    });
    const { code, details } = await client.call("/troupe.v1.ControlService/Status", [Buffer.alloc(0)]);
    client.close();
    expect(code).toBe(grpc.status.UNAVAILABLE);
    expect(details).toMatch(/127\.0\.0\.2/);
  });
});

describe("one clear error", () => {
  test("for plaintext to a coordinator with TLS", async () => {
    for (const { address } of [secure, mutual]) {
      await expect(status(address)).rejects.toMatchObject({
        code: "AUTH",
        message: expect.stringMatching(/uses TLS; pass --tls-ca FILE/) as string,
      });
    }
  });

  test("for TLS to a coordinator without it", async () => {
    await expect(status(plain.address, trust())).rejects.toMatchObject({
      code: "AUTH",
      message: expect.stringMatching(/answers without TLS; start it with --tls-cert/) as string,
    });
  });

  test("but none about TLS when nobody is there, when all is well, or when somebody says nothing", async () => {
    const silent: Server = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => silent.once("listening", resolve));
    const { port } = silent.address() as AddressInfo;
    const silence = explainTlsFailure(`127.0.0.1:${port}`, trust());
    expect(await explainTlsFailure("127.0.0.1:1", trust())).toBeUndefined();
    expect(await explainTlsFailure("127.0.0.1:1", undefined)).toBeUndefined();
    expect(await explainTlsFailure(secure.address, trust())).toBeUndefined();
    expect(await explainTlsFailure(mutual.address, identity("a"))).toBeUndefined();
    expect(await explainTlsFailure(plain.address, undefined)).toBeUndefined();
    expect(await silence).toBeUndefined();
    silent.close();
  });
});

test("nothing older than TLS 1.2 is spoken", async () => {
  const { host, port } = splitAddress(secure.address);
  const attempt = (maxVersion: "TLSv1.1" | "TLSv1.2") =>
    new Promise<string>((resolve) => {
      const socket = connect({
        ...{ host, port, rejectUnauthorized: false, minVersion: "TLSv1", maxVersion },
        ciphers: "DEFAULT@SECLEVEL=0",
      });
      socket.once("secureConnect", () => (resolve(socket.getProtocol() ?? ""), socket.destroy()));
      socket.once("error", (error) => resolve(error.message));
    });
  expect(await attempt("TLSv1.1")).toMatch(/alert protocol version/);
  expect(await attempt("TLSv1.2")).toBe("TLSv1.2");
});

describe("files that cannot be used are refused before anything listens or connects", () => {
  const server = (cert: string, key: string) => () => serverCredentials({ cert: file(cert), key: file(key) });

  test("a missing one, a key of another certificate, a certificate in place of a key", () => {
    expect(server("none.crt", "a/server.key")).toThrow(/--tls-cert .*none\.crt cannot be read/);
    expect(server("a/server.crt", "b/server.key")).toThrow(/is not the key of the certificate/);
    expect(server("a/server.crt", "a/client.key")).toThrow(/is not the key of the certificate/);
    writeFileSync(file("cert-as-key"), "-----BEGIN CERTIFICATE-----\n", { mode: 0o600 });
    expect(server("a/server.crt", "cert-as-key")).toThrow(/expected an unencrypted PEM private key/);
    writeFileSync(file("text"), "hello");
    expect(server("text", "a/server.key")).toThrow(/expected a PEM certificate/);
  });

  test("a private key that everybody can read", () => {
    writeFileSync(file("open.key"), "x", { mode: 0o644 });
    expect(server("a/server.crt", "open.key")).toThrow(/chmod 600/);
  });

  test("an expired certificate", async () => {
    await writeCertificates(file("old"), { hosts: [], days: 1, now: new Date(Date.now() - 3 * 86_400_000) });
    expect(server("old/server.crt", "old/server.key")).toThrow(/expired on .*certs init/);
  });

  test("half an identity", () => {
    expect(() => clientChannel("h:1", { tls: { ...trust(), cert: file("a/client.crt") } })).toThrow(
      /--tls-cert and --tls-key belong together/,
    );
  });
});

test("a token leaves this machine encrypted, or because --insecure says so", () => {
  const token = "0123456789abcdef";
  for (const address of ["10.0.0.1:7070", "coordinator:7070", "0.0.0.0:7070"]) {
    expect(() => clientChannel(address, { token })).toThrow(/unencrypted: pass --tls-ca .*--insecure/);
    clientChannel(address, { token, insecure: true });
    clientChannel(address, { token, tls: trust() });
    clientChannel(address, {});
  }
  for (const address of ["127.0.0.1:7070", "localhost:7070", "[::1]:7070"]) clientChannel(address, { token });
});

test("an address is host:port, with brackets around IPv6", () => {
  expect(splitAddress("[::1]:7070")).toEqual({ host: "::1", port: 7070 });
  expect(splitAddress("gpu-1.local:70")).toEqual({ host: "gpu-1.local", port: 70 });
  for (const wrong of ["host", "host:", "::1:7070", "host:port", ":7070"])
    expect(() => splitAddress(wrong)).toThrow(/HOST:PORT/);
});
