import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import { pathOf, read } from "./repository.js";

interface Workload {
  kind: string;
  metadata: { name: string };
  spec: {
    template: {
      spec: {
        containers: { args: string[]; volumeMounts: { name: string; mountPath: string }[] }[];
        volumes: { name: string; secret?: { secretName: string } }[];
      };
    };
  };
}

const hasKubectl = spawnSync("kubectl", ["version", "--client"]).status === 0;

test.skipIf(!hasKubectl)(
  "(needs kubectl) the tls overlay gives every role the files of its own secret, and nobody another's",
  () => {
    const run = spawnSync("kubectl", ["kustomize", pathOf("deploy/kubernetes/overlays/tls")], {
      encoding: "utf8",
    });
    expect(run.stderr).toBe("");
    const workloads = parseAllDocuments(run.stdout)
      .map((document) => document.toJS() as Workload)
      .filter(({ kind }) => kind === "Deployment" || kind === "StatefulSet");
    const seen = workloads.map(({ metadata, spec }) => {
      const { containers, volumes } = spec.template.spec;
      const [{ args, volumeMounts }] = containers;
      expect(volumeMounts).toContainEqual({ name: "tls", mountPath: "/etc/troupe-tls", readOnly: true });
      const secret = volumes.find(({ name }) => name === "tls")?.secret?.secretName;
      return [metadata.name, secret, ...args.filter((arg) => arg.startsWith("--tls"))];
    });
    const at = "/etc/troupe-tls";
    const worker = [`--tls-ca=${at}/ca.crt`, `--tls-cert=${at}/client.crt`, `--tls-key=${at}/client.key`];
    expect(seen.sort()).toEqual([
      [
        "troupe-coordinator",
        "troupe-tls-server",
        `--tls-cert=${at}/server.crt`,
        `--tls-key=${at}/server.key`,
        `--tls-client-ca=${at}/ca.crt`,
      ],
      ["troupe-learner", "troupe-tls-client", ...worker],
      ["troupe-rollout", "troupe-tls-client", ...worker],
    ]);
    const guide = read("deploy/README.md");
    for (const [, secret] of seen) expect(guide).toContain(`create secret generic ${secret ?? ""}`);
  },
);

test("Slurm and systemd pass the options that the program has for TLS", () => {
  const help = (...command: string[]) =>
    spawnSync(process.execPath, [pathOf("bin", "troupe.mjs"), ...command, "--help"], { encoding: "utf8" })
      .stdout;
  const script = read("deploy/slurm/troupe.sbatch");
  expect(script).not.toContain("--insecure");
  expect(help("certs", "init")).toMatch(/--host/);
  for (const flag of ["--tls-cert", "--tls-key", "--tls-client-ca"]) {
    expect(script).toContain(flag);
    expect(help("coordinator")).toMatch(new RegExp(`\\s${flag}\\b`));
  }
  expect(read("deploy/systemd/troupe-worker@.service")).toMatch(/^ExecStart=.* \$TROUPE_ARGS$/m);
  for (const role of ["rollout", "learner", "status", "scale", "launch"])
    expect(help(role)).toMatch(/--tls-ca <file>/);
});
