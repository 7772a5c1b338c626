import { spawnSync } from "node:child_process";
import { X509Certificate, createPrivateKey, createPublicKey } from "node:crypto";
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createAuthority, issue } from "../../../src/rpc/certificate.js";
import { writeCertificates } from "../../../src/rpc/certificate-files.js";
import {
  bitString,
  boolean,
  integer,
  objectIdentifier,
  octetString,
  sequence,
  time,
  utf8String,
} from "../../../src/rpc/der.js";

const hex = (bytes: Buffer) => bytes.toString("hex");

describe("DER", () => {
  test("lengths take one byte below 128, then as many as they need", () => {
    expect(hex(octetString(Buffer.alloc(127))).slice(0, 4)).toBe("047f");
    expect(hex(octetString(Buffer.alloc(128))).slice(0, 6)).toBe("048180");
    expect(hex(octetString(Buffer.alloc(256))).slice(0, 8)).toBe("04820100");
    expect(hex(octetString(Buffer.alloc(65_536))).slice(0, 10)).toBe("0483010000");
  });

  test("integers are minimal and never negative", () => {
    expect(hex(integer(Buffer.from("00", "hex")))).toBe("020100");
    expect(hex(integer(Buffer.from("7f", "hex")))).toBe("02017f");
    expect(hex(integer(Buffer.from("80", "hex")))).toBe("02020080");
    expect(hex(integer(Buffer.from("00000080", "hex")))).toBe("02020080");
    expect(hex(integer(Buffer.from("0100", "hex")))).toBe("02020100");
  });

  test("object identifiers are base 128 with 40·first + second in front", () => {
    expect(hex(objectIdentifier("1.2.840.10045.4.3.2"))).toBe("06082a8648ce3d040302"); // ecdsa-with-SHA256, RFC 5758
    expect(hex(objectIdentifier("2.5.29.17"))).toBe("0603551d11"); // subjectAltName
    expect(hex(objectIdentifier("1.2.840.113549.1.1.11"))).toBe("06092a864886f70d01010b"); // RFC 8017
  });

  test("times are UTCTime through 2049 and GeneralizedTime after", () => {
    expect(time(new Date("2049-12-31T23:59:59.987Z")).toString("latin1")).toBe("\x17\x0d491231235959Z");
    expect(time(new Date("2050-01-01T00:00:00Z")).toString("latin1")).toBe("\x18\x0f20500101000000Z");
  });

  test("the rest", () => {
    expect(hex(boolean(true))).toBe("0101ff");
    expect(hex(bitString(Buffer.from([0x80]), 7))).toBe("03020780");
    expect(hex(sequence(utf8String("é"), sequence()))).toBe("30060c02c3a93000");
  });
});

const validity = { from: new Date("2026-01-01T00:00:00Z"), until: new Date("2051-06-01T12:30:00Z") };
const NAMES = ["coordinator.example.org", "10.1.2.3", "::1", "fe80::1:2", "::ffff:1.2.3.4", "*.pods.local"];

describe("certificates", () => {
  const authority = createAuthority("an authority", validity);
  const other = createAuthority("an authority", validity);
  const server = issue(authority, "server", "coordinator", NAMES, validity);
  const client = issue(authority, "client", "worker", [], validity);
  const parsed = new X509Certificate(server.certificate);

  test("are signed by their authority and by no other of the same name", () => {
    for (const { certificate } of [authority, server, client]) {
      const one = new X509Certificate(certificate);
      expect(one.verify(createPublicKey(authority.certificate))).toBe(true);
      expect(one.verify(createPublicKey(other.certificate))).toBe(false);
      expect(one.checkIssued(new X509Certificate(authority.certificate))).toBe(true);
    }
  });

  test("hold exactly the names they were made for", () => {
    for (const name of NAMES.slice(1, 5)) expect(parsed.checkIP(name)).toBeDefined();
    expect(parsed.checkIP("10.1.2.4")).toBeUndefined();
    expect(parsed.checkIP("::2")).toBeUndefined();
    expect(parsed.checkHost("coordinator.example.org")).toBeDefined();
    expect(parsed.checkHost("a.pods.local")).toBeDefined();
    expect(parsed.checkHost("example.org")).toBeUndefined();
    expect(new X509Certificate(client.certificate).subjectAltName).toBeUndefined();
  });

  test("say what they may be used for, who may sign, and how long", () => {
    expect(parsed.ca).toBe(false);
    expect(new X509Certificate(authority.certificate).ca).toBe(true);
    expect(parsed.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1"]);
    const peer = issue(authority, "peer", "peer", NAMES, validity);
    expect(new X509Certificate(peer.certificate).keyUsage).toEqual([
      "1.3.6.1.5.5.7.3.1",
      "1.3.6.1.5.5.7.3.2",
    ]);
    expect(new X509Certificate(client.certificate).keyUsage).toEqual(["1.3.6.1.5.5.7.3.2"]);
    expect(Date.parse(parsed.validFrom)).toBe(validity.from.getTime());
    expect(Date.parse(parsed.validTo)).toBe(validity.until.getTime());
    expect(parsed.checkPrivateKey(createPrivateKey(server.privateKey))).toBe(true);
  });

  test("never repeat a serial number", () => {
    const serials = new Set(
      Array.from(
        { length: 20 },
        () => new X509Certificate(issue(authority, "client", "w", [], validity).certificate).serialNumber,
      ),
    );
    expect(serials.size).toBe(20);
  });

  test.each(["", "two words", "a\nb", "host:7070", "-x", "ä.example.org", "999.1.1.1.", "a".repeat(300)])(
    "are not made for %j, which is no name",
    (name) => {
      expect(() => issue(authority, "server", "coordinator", [name], validity)).toThrow(
        /host name or an IP address/,
      );
    },
  );
});

describe("a folder of certificates", () => {
  let folder: string;
  beforeAll(() => (folder = mkdtempSync(join(tmpdir(), "troupe-certs-"))));
  afterAll(() => rmSync(folder, { recursive: true }));
  const request = { hosts: ["gpu-1"], days: 10, now: new Date() };

  test("has private keys that only their owner can read, and is never written over", async () => {
    const dir = join(folder, "certs");
    const { names, until } = await writeCertificates(dir, request);
    expect(names).toEqual(expect.arrayContaining(["localhost", "127.0.0.1", "gpu-1"]));
    expect(until.getTime() - request.now.getTime()).toBe(10 * 86_400_000);
    expect(readdirSync(dir).sort()).toEqual([
      "ca.crt",
      "ca.key",
      "client.crt",
      "client.key",
      "server.crt",
      "server.key",
    ]);
    for (const name of ["ca", "server", "client"])
      expect(statSync(join(dir, `${name}.key`)).mode & 0o777).toBe(0o600);
    const before = readFileSync(join(dir, "server.key"), "utf8");
    await expect(writeCertificates(dir, request)).rejects.toMatchObject({ code: "CONFIG" });
    expect(readFileSync(join(dir, "server.key"), "utf8")).toBe(before);
  });

  const openssl = spawnSync("openssl", ["version"], { encoding: "utf8" });
  test.skipIf(openssl.status !== 0)("(needs openssl) passes its strict check", async () => {
    const dir = join(folder, "strict");
    await writeCertificates(dir, request);
    for (const args of [
      ["-purpose", "sslserver", "-verify_hostname", "gpu-1", "server.crt"],
      ["-purpose", "sslserver", "-verify_ip", "127.0.0.1", "server.crt"],
      ["-purpose", "sslclient", "client.crt"],
    ]) {
      const check = spawnSync("openssl", ["verify", "-x509_strict", "-CAfile", "ca.crt", ...args], {
        cwd: dir,
        encoding: "utf8",
      });
      expect(check.stdout + check.stderr).toMatch(/: OK$/m);
    }
    const misuse = spawnSync(
      "openssl",
      ["verify", "-purpose", "sslserver", "-CAfile", "ca.crt", "client.crt"],
      { cwd: dir, encoding: "utf8" },
    );
    expect(misuse.status).not.toBe(0);
  });
});
