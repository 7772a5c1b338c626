import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readCoordinatorFile } from "../../src/shared/coordinator-file.js";
import { ControlClient } from "../../src/rpc/control-client.js";
import { writeCertificates } from "../../src/rpc/certificate-files.js";
import { sleep } from "../../src/shared/abort.js";
import { packageRoot } from "../../src/shared/paths.js";
import { RunFolder, type Run } from "../helpers/tiny-run.js";

const canary = (name: string) => `canary-${name}-${randomBytes(16).toString("hex")}`;
const TOKENS = { rollout: canary("rollout"), learner: canary("learner"), control: canary("control") };
const HF_TOKEN = `hf_${canary("hub").replaceAll("-", "")}`;

let folder: string;
let runs: RunFolder;
let run: Run;
/** Command lines of every process of the run, as anybody on the machine sees them. */
const commandLines = new Set<string>();
/** Everything the HTTP side said. */
let pages = "";
let keys: string[] = [];
const file = (...names: string[]) => join(folder, ...names);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "troupe-secrets-"));
  for (const dir of ["certs", "other"])
    await writeCertificates(file(dir), { hosts: [], days: 2, now: new Date() });
  writeFileSync(
    file("token"),
    Object.entries(TOKENS)
      .map(([role, token]) => `${role} ${token}\n`)
      .join(""),
    { mode: 0o600 },
  );
  writeFileSync(file("rollout-token"), `rollout ${TOKENS.rollout}\n`, { mode: 0o600 });
  writeFileSync(file("wrong-token"), randomBytes(32).toString("hex"), { mode: 0o600 });
  keys = ["ca", "server", "client"].map(
    (name) => readFileSync(file("certs", `${name}.key`), "utf8").split("\n")[1],
  );
  process.env["HF_TOKEN"] = HF_TOKEN;
  runs = new RunFolder();
  const tls = {
    cert: "server.crt",
    key: "server.key",
    clientCa: "ca.crt",
    ca: "ca.crt",
    clientCert: "client.crt",
    clientKey: "client.key",
  };
  const sets = [
    `cluster.tokenFile=${file("token")}`,
    ...Object.entries(tls).map(([key, name]) => `cluster.tls.${key}=${file("certs", name)}`),
  ];
  run = await runs.start("secrets", [
    "--rollouts",
    "0",
    "--learners",
    "1",
    ...sets.flatMap((set) => ["--set", set]),
  ]);
});

afterAll(async () => {
  delete process.env["HF_TOKEN"];
  await runs.remove();
  rmSync(folder, { recursive: true, force: true });
});

const clientTls = (dir = "certs", ca = "certs") => [
  "--tls-ca",
  file(ca, "ca.crt"),
  "--tls-cert",
  file(dir, "client.crt"),
  "--tls-key",
  file(dir, "client.key"),
];

/** Runs the program to its end. A worker that was let in would stay; it is ended and reported as exit code -1. */
async function troupe(
  args: readonly string[],
  patienceMs = 40_000,
): Promise<{ code: number; output: string }> {
  const child: ChildProcess = spawn(process.execPath, [join(packageRoot, "bin", "troupe.mjs"), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, TROUPE_SKIP_BUILD: "1", NO_COLOR: "1" },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream?.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const timer = setTimeout(() => child.kill("SIGKILL"), patienceMs);
  const code = await new Promise<number>((resolve) => child.once("close", (status) => resolve(status ?? -1)));
  clearTimeout(timer);
  return { code, output };
}

function noteCommandLines(): void {
  if (!existsSync("/proc/self/cmdline")) return;
  for (const pid of run.processes()) {
    try {
      commandLines.add(readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " "));
    } catch {
      // ended meanwhile
    }
  }
}

describe("a run with role tokens and mutual TLS", () => {
  let address: string;
  const attempts = new Map<string, Promise<{ code: number; output: string }>>();

  beforeAll(async () => {
    let found;
    while ((found = await readCoordinatorFile(run.runDir)) === undefined) {
      if (run.launcher.exitCode !== null) throw new Error(run.output);
      await sleep(50);
    }
    address = found.grpcAddress;
    const rollout = ["rollout", "--coordinator", address];
    const token = ["--token-file", file("token")];
    // One after the other while the run goes on: two cores are enough for it and one stranger.
    let last: Promise<unknown> = Promise.resolve();
    for (const [name, args] of Object.entries({
      "no token": [...rollout, ...clientTls()],
      "a wrong token": [...rollout, ...clientTls(), "--token-file", file("wrong-token")],
      "a rollout's token as a learner": [
        "learner",
        "--coordinator",
        address,
        ...clientTls(),
        "--token-file",
        file("rollout-token"),
      ],
      "a rollout's token for status": [
        "status",
        "--coordinator",
        address,
        ...clientTls(),
        "--token-file",
        file("rollout-token"),
      ],
      plaintext: [...rollout, ...token],
      "another authority": [...rollout, ...token, ...clientTls("certs", "other")],
      "another authority's certificate": [...rollout, ...token, ...clientTls("other")],
      "no certificate": [...rollout, ...token, "--tls-ca", file("certs", "ca.crt")],
      "everything right": ["status", "--run-dir", run.runDir],
    })) {
      const attempt = last.then(() => troupe(args));
      attempts.set(name, attempt);
      last = attempt;
    }
    const control = new ControlClient(address, {
      token: TOKENS.control,
      tls: {
        ca: file("certs", "ca.crt"),
        cert: file("certs", "client.crt"),
        key: file("certs", "client.key"),
      },
    });
    await last;
    // Without a rollout worker the run waits in its last stage: what follows sees it at work, and then to its end.
    await control.scale("rollout", 1);
    let status = await control.status();
    while (status.workers.length < 2 && run.launcher.exitCode === null) {
      await sleep(50);
      status = await control.status();
    }
    noteCommandLines();
    control.close();
    for (const path of ["", "metrics", "api/status", "sd/prometheus"])
      pages += await (await fetch(`${found.httpAddress}/${path}`)).text();
    for (const { metricsAddress } of status.workers)
      pages += await (await fetch(`http://${metricsAddress}/metrics`)).text();
    await run.finish();
  });

  test.each([
    ["no token", 77, /join token missing; pass the coordinator's --token-file/],
    ["a wrong token", 77, /join token wrong; pass the --token-file of this coordinator/],
    ["a rollout's token as a learner", 2, /holds no learner token; add a line "learner TOKEN"/],
    ["a rollout's token for status", 2, /holds no control token/],
    ["plaintext", 77, /uses TLS; pass --tls-ca FILE/],
    ["another authority", 77, /is not signed by .*other.ca\.crt/],
    ["another authority's certificate", 77, /does not accept the certificate/],
    ["no certificate", 77, /asks for a client certificate; pass --tls-cert and --tls-key/],
    ["everything right", 0, /learner-0 /],
  ])("%s ends with exit code %i and says what to do", async (name, code, said) => {
    const attempt = await attempts.get(name);
    expect(attempt).toMatchObject({ code, output: expect.stringMatching(said) as string });
    // One clear error: a line, not a stack.
    if (code !== 0) expect(attempt?.output).not.toMatch(/\n\s+at |DeprecationWarning/);
  });

  test("leaves no secret anywhere: files, command lines, output, metrics, dashboard", async () => {
    const secrets = [...Object.values(TOKENS), HF_TOKEN, ...keys];
    const haystacks: [string, string][] = [
      ["output", run.output],
      ["pages", pages],
      ...[...commandLines].map((line, i): [string, string] => [`command line ${i}`, line]),
      ...(await Promise.all(
        [...attempts].map(async ([name, attempt]): Promise<[string, string]> => [
          name,
          (await attempt).output,
        ]),
      )),
    ];
    const files = readdirSync(run.runDir, { recursive: true, withFileTypes: true }).filter((entry) =>
      entry.isFile(),
    );
    for (const entry of files) {
      const path = join(entry.parentPath, entry.name);
      haystacks.push([path, readFileSync(path, "latin1")]);
    }
    const names = files.map(({ name }) => name);
    // The search is worth nothing where nothing was written.
    expect(names).toEqual(
      expect.arrayContaining([
        "coordinator.json",
        "config.yaml",
        "summary.json",
        "coordinator.ndjson",
        "metrics.jsonl",
        "manifest.json",
      ]),
    );
    expect(pages).toContain("troupe_auth_failures_total");
    if (existsSync("/proc/self/cmdline"))
      expect([...commandLines].join("\n")).toContain(`--token-file ${file("token")}`);
    for (const secret of secrets) {
      expect(secret.length).toBeGreaterThan(20);
      for (const [where, text] of haystacks)
        expect(text.includes(secret) ? where : "", secret.slice(0, 14)).toBe("");
    }
  });

  test("and counts and logs who was refused", () => {
    expect(pages).toMatch(/troupe_auth_failures_total\{[^}]*reason="missing"[^}]*\} [1-9]/);
    expect(pages).toMatch(/troupe_auth_failures_total\{[^}]*reason="invalid"[^}]*\} [1-9]/);
    const log = readFileSync(join(run.runDir, "logs", "coordinator.ndjson"), "utf8");
    expect(log).toMatch(/call refused: no join token/);
    expect(log).toMatch(/call refused: wrong join token/);
  });
});

describe("listening beyond loopback", () => {
  test("needs a token and TLS or consent, and says so before anything is opened", async () => {
    const config = join(runs.path, "input", "tiny.yaml");
    const listen = ["coordinator", config, "--run-dir", file("open"), "--host", "0.0.0.0"];
    const bare = await troupe(listen);
    expect(bare).toMatchObject({ code: 2, output: expect.stringMatching(/tokenFile/) as string });
    const withToken = await troupe([...listen, "--token-file", file("token")]);
    expect(withToken).toMatchObject({ code: 2, output: expect.stringMatching(/not encrypted/) as string });
    const half = await troupe([
      ...listen,
      "--token-file",
      file("token"),
      "--tls-cert",
      file("certs", "server.crt"),
    ]);
    expect(half).toMatchObject({ code: 2, output: expect.stringMatching(/cluster\.tls\.key/) as string });
    expect(existsSync(file("open", "coordinator.json"))).toBe(false);
  });
});
