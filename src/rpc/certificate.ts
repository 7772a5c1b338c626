/**
 * X.509 v3 certificates (RFC 5280) over ECDSA P-256 with SHA-256: one authority per cluster, and what it signs. Enough
 * for mutual TLS between the processes of a run; not a general certificate tool.
 */
import {
  createHash,
  createPublicKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  type KeyObject,
} from "node:crypto";
import { isIP } from "node:net";
import { configError } from "../shared/errors.js";
import {
  bitString,
  boolean,
  explicit,
  implicit,
  integer,
  objectIdentifier,
  octetString,
  sequence,
  set,
  time,
  utf8String,
} from "./der.js";

export interface Identity {
  /** PEM */
  readonly certificate: string;
  /** PEM, PKCS #8, not encrypted */
  readonly privateKey: string;
}

export interface Authority extends Identity {
  readonly commonName: string;
  readonly key: KeyObject;
}

export interface Validity {
  readonly from: Date;
  readonly until: Date;
}

const ECDSA_WITH_SHA256 = sequence(objectIdentifier("1.2.840.10045.4.3.2"));
const SERVER_AUTH = objectIdentifier("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH = objectIdentifier("1.3.6.1.5.5.7.3.2");
/** Peers, servers of one cluster, call each other with the certificate that they answer with. */
const PURPOSE = { server: [SERVER_AUTH], client: [CLIENT_AUTH], peer: [SERVER_AUTH, CLIENT_AUTH] } as const;
const DIGITAL_SIGNATURE = bitString(Buffer.from([0b1000_0000]), 7);
const CERT_AND_CRL_SIGN = bitString(Buffer.from([0b0000_0110]), 1);

/** A self-signed authority that may sign end certificates only (path length 0). */
export function createAuthority(commonName: string, validity: Validity): Authority {
  const { publicKey, privateKey } = newKeys();
  const certificate = signed({
    commonName,
    issuerName: commonName,
    validity,
    publicKey,
    signingKey: privateKey,
    extensions: [
      extension("2.5.29.19", sequence(boolean(true), integer(Buffer.from([0]))), true),
      extension("2.5.29.15", CERT_AND_CRL_SIGN, true),
      extension("2.5.29.14", octetString(keyIdOf(publicKey))),
    ],
  });
  return { commonName, certificate, privateKey: toPem(privateKey), key: privateKey };
}

/**
 * @param names host names and IP addresses the holder answers to; a client needs none
 * @throws {TroupeError} CONFIG for a name that is neither
 */
export function issue(
  authority: Authority,
  purpose: keyof typeof PURPOSE,
  commonName: string,
  names: readonly string[],
  validity: Validity,
): Identity {
  const { publicKey, privateKey } = newKeys();
  const certificate = signed({
    commonName,
    issuerName: authority.commonName,
    validity,
    publicKey,
    signingKey: authority.key,
    extensions: [
      extension("2.5.29.19", sequence(), true),
      extension("2.5.29.15", DIGITAL_SIGNATURE, true),
      extension("2.5.29.37", sequence(...PURPOSE[purpose])),
      ...(names.length === 0 ? [] : [extension("2.5.29.17", sequence(...names.map(generalName)))]),
      extension("2.5.29.14", octetString(keyIdOf(publicKey))),
      extension("2.5.29.35", sequence(implicit(0, keyIdOf(createPublicKey(authority.key))))),
    ],
  });
  return { certificate, privateKey: toPem(privateKey) };
}

interface Contents {
  readonly commonName: string;
  readonly issuerName: string;
  readonly validity: Validity;
  readonly publicKey: KeyObject;
  readonly signingKey: KeyObject;
  readonly extensions: readonly Buffer[];
}

function signed({ commonName, issuerName, validity, publicKey, signingKey, extensions }: Contents): string {
  const body = sequence(
    explicit(0, integer(Buffer.from([2]))), // version 3
    integer(randomBytes(16)),
    ECDSA_WITH_SHA256,
    distinguishedName(issuerName),
    sequence(time(validity.from), time(validity.until)),
    distinguishedName(commonName),
    publicKey.export({ type: "spki", format: "der" }),
    explicit(3, sequence(...extensions)),
  );
  const signature = sign("sha256", body, { key: signingKey, dsaEncoding: "der" });
  return pem("CERTIFICATE", sequence(body, ECDSA_WITH_SHA256, bitString(signature)));
}

const newKeys = () => generateKeyPairSync("ec", { namedCurve: "P-256" });

const distinguishedName = (commonName: string): Buffer =>
  sequence(set(sequence(objectIdentifier("2.5.4.3"), utf8String(commonName))));

const extension = (id: string, value: Buffer, isCritical = false): Buffer =>
  sequence(objectIdentifier(id), ...(isCritical ? [boolean(true)] : []), octetString(value));

/** SHA-1 of the raw public point, RFC 5280 §4.2.1.2 method 1: an identifier, not a protection. */
function keyIdOf(publicKey: KeyObject): Buffer {
  const info = publicKey.export({ type: "spki", format: "der" });
  return createHash("sha1").update(info.subarray(-65)).digest(); // 0x04, X and Y end the structure
}

function generalName(name: string): Buffer {
  const family = isIP(name);
  if (family !== 0) return implicit(7, family === 4 ? ipv4Bytes(name) : ipv6Bytes(name));
  if (!/^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?$/.test(name))
    throw configError(`expected a host name or an IP address, got ${JSON.stringify(name)}`);
  return implicit(2, Buffer.from(name, "ascii"));
}

const ipv4Bytes = (address: string): Buffer => Buffer.from(address.split(".").map(Number));

function ipv6Bytes(address: string): Buffer {
  // The last 32 bits may be written as IPv4; "::" stands for as many zero groups as are missing.
  const plain = address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) =>
    [(Number(a) << 8) | Number(b), (Number(c) << 8) | Number(d)].map((group) => group.toString(16)).join(":"),
  );
  const [head, tail] = plain.split("::").map((part) => (part === "" ? [] : part.split(":")));
  const groups =
    tail === undefined
      ? head
      : [...head, ...new Array<string>(8 - head.length - tail.length).fill("0"), ...tail];
  return Buffer.concat(groups.map((group) => Buffer.from(group.padStart(4, "0"), "hex")));
}

const toPem = (key: KeyObject): string => key.export({ type: "pkcs8", format: "pem" }) as string;

const pem = (label: string, der: Buffer): string =>
  `-----BEGIN ${label}-----\n${(der.toString("base64").match(/.{1,64}/g) ?? []).join("\n")}\n-----END ${label}-----\n`;
