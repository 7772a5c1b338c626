import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { configSchema } from "../../../src/config/schema.js";
import { JoinTokens } from "../../../src/rpc/auth.js";
import { pathOf, read, readOneYaml, readYaml } from "./repository.js";

interface Compose {
  services: Record<
    string,
    { command?: string[]; profiles?: string[]; healthcheck?: unknown; [key: string]: unknown }
  >;
  configs: Record<string, { file: string }>;
  secrets: Record<string, { file: string }>;
  volumes: Record<string, unknown>;
}
interface Container {
  name: string;
  args: string[];
}

const ROLES = ["coordinator", "rollout", "learner"] as const;

/** What the program itself says it takes. */
function helpOf(role: string): string {
  const run = spawnSync(process.execPath, [pathOf("bin", "troupe.mjs"), role, "--help"], {
    encoding: "utf8",
  });
  expect(run.stderr + run.stdout).toContain(`troupe ${role}`);
  return run.stdout;
}
const help = Object.fromEntries(ROLES.map((role) => [role, helpOf(role)]));

function expectAccepted(role: string, args: readonly string[]): void {
  const flags = args.filter((arg) => arg.startsWith("--")).map((arg) => arg.split("=")[0]);
  expect(flags.length).toBeGreaterThan(0);
  for (const flag of flags) expect(help[role]).toMatch(new RegExp(`\\s${flag}\\b`));
  const takesConfig = help[role].includes("<config>");
  const positional = args.slice(1).filter((arg) => !arg.startsWith("-"));
  expect(positional).toHaveLength(takesConfig ? 1 : 0);
}

const compose = readOneYaml<Compose>("deploy/compose.yaml");

test.each(ROLES)("compose starts the %s with options the program has", (role) => {
  const command = compose.services[role].command ?? [];
  expect(command[0]).toBe(role);
  expectAccepted(role, command);
});

test.each(ROLES)("kubernetes starts the %s with options the program has", (role) => {
  const workload = readYaml(`deploy/kubernetes/base/${role}.yaml`).find(
    (document) => (document as { kind: string }).kind !== "Service",
  ) as { spec: { template: { spec: { containers: Container[] } } } };
  const [container] = workload.spec.template.spec.containers;
  expect(container.args[0]).toBe(role);
  expectAccepted(role, container.args);
});

test("systemd and Slurm start roles with options the program has", () => {
  const unit = /^ExecStart=.*troupe\.mjs (.*)$/m.exec(read("deploy/systemd/troupe-worker@.service"));
  expectFlags(unit?.[1] ?? "", ["rollout", "learner"]);
  const script = read("deploy/slurm/troupe.sbatch").replaceAll("\\\n", " ");
  const commands = script.split("\n").filter((line) => /^\s*(srun .*)?node "\$troupe"/.test(line));
  expect(commands).toHaveLength(2);
  for (const command of commands) {
    const afterProgram = command.slice(command.indexOf('"$troupe"'));
    expectFlags(
      afterProgram,
      afterProgram.includes(" coordinator ") ? ["coordinator"] : ["rollout", "learner"],
    );
  }
});

test("a worker that Slurm starts says which others start on its node, so that the node's memory is asked for once", () => {
  const script = read("deploy/slurm/troupe.sbatch").replaceAll("\\\n", " ");
  const command = /^\s*srun .*node "\$troupe" "\$1" .*$/m.exec(script)?.[0];
  expect(command).toContain('--host-rollouts "$rollouts_per_node" --host-learners "$learners_per_node"');
  const started = [...script.matchAll(/^worker (\S+) (\S+)$/gm)].map(([, role, count]) => [role, count]);
  expect(started).toEqual([
    ["learner", '"$learners_per_node"'],
    ["rollout", '"$rollouts_per_node"'],
  ]);
});

function expectFlags(text: string, roles: readonly string[]): void {
  const flags = text.match(/--[a-z-]+/g) ?? [];
  expect(flags.length).toBeGreaterThan(2);
  for (const role of roles) for (const flag of flags) expect(help[role]).toMatch(new RegExp(`\\s${flag}\\b`));
}

test("the coordinator has all tokens, every worker its own only, and each knows that they travel in plaintext", () => {
  const secretOf = {
    coordinator: "troupe-tokens",
    rollout: "troupe-rollout-token",
    learner: "troupe-learner-token",
  };
  for (const role of ROLES) {
    const command = compose.services[role].command ?? [];
    expect(command).toContain(`--token-file=/run/secrets/${secretOf[role]}`);
    expect(command).toContain("--insecure");
    expect(compose.services[role]["secrets"]).toEqual([secretOf[role]]);
  }
  const folder = mkdtempSync(join(tmpdir(), "troupe-tokens-"));
  try {
    // Everything of the script but the call of docker.
    const script = read("deploy/compose.sh").replace(/^exec docker[^]*$/m, "");
    writeFileSync(join(folder, "compose.sh"), script);
    expect(spawnSync("sh", [join(folder, "compose.sh")]).status).toBe(0);
    const made = Object.values(compose.secrets).map(({ file }) => join(folder, file));
    const [all, rollout, learner] = made.map((file) => JoinTokens.read(file));
    for (const role of ["rollout", "learner", "control"] as const)
      expect(all.rolesOf(all.forRole(role))).toEqual([role]);
    expect(rollout.secrets).toEqual([all.forRole("rollout")]);
    expect(learner.secrets).toEqual([all.forRole("learner")]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("compose refers only to volumes, configs, secrets and services it defines, and publishes only on loopback", () => {
  for (const [name, service] of Object.entries(compose.services)) {
    for (const source of (service["volumes"] ?? []) as string[]) {
      const [from, to] = source.split(":");
      if (to !== undefined && !from.startsWith(".")) expect(Object.keys(compose.volumes)).toContain(from);
    }
    for (const port of (service["ports"] ?? []) as string[]) expect(port).toMatch(/^127\.0\.0\.1:/);
    expect(Object.keys(service)).not.toContain("container_name");
    for (const needed of Object.keys((service["depends_on"] ?? {}) as object)) {
      expect(Object.keys(compose.services)).toContain(needed);
    }
    const isOurs = (ROLES as readonly string[]).includes(name);
    expect(service["profiles"]).toEqual(isOurs ? undefined : ["monitoring"]);
    if (isOurs)
      expect(service).toMatchObject({ read_only: true, cap_drop: ["ALL"], stop_grace_period: "30s" });
  }
  expect(readOneYaml(compose.configs["run"].file.replace(/^.*:-\.\/(.*)\}$/, "deploy/$1"))).toBeTruthy();
});

test("the sample run is valid, and Kubernetes has the same one", () => {
  const config = configSchema.parse(readOneYaml("deploy/config/run.yaml"));
  expect(config.stages).toEqual(["sft", "reward", "ppo"]);
  expect(read("deploy/kubernetes/base/run.yaml")).toBe(read("deploy/config/run.yaml"));
  const validate = spawnSync(
    process.execPath,
    [pathOf("bin", "troupe.mjs"), "config", "validate", pathOf("deploy/config/run.yaml")],
    { encoding: "utf8" },
  );
  expect(validate.stderr).not.toMatch(/unknown|contradict|must|expected/i);
});

test.each(["deploy/launch.sh", "deploy/compose.sh"])("%s is valid POSIX shell", (script) => {
  expect(spawnSync("sh", ["-n", pathOf(script)]).status).toBe(0);
});

test("launch.sh without arguments explains itself and exits 2", () => {
  const run = spawnSync("sh", [pathOf("deploy/launch.sh")], { encoding: "utf8" });
  expect(run.status).toBe(2);
  expect(run.stderr).toContain("sh deploy/launch.sh CONFIG [ROLLOUTS [LEARNERS]]");
});

test("launch.sh passes what it is given to the program, which reports a missing config with exit code 2", () => {
  const run = spawnSync("sh", [pathOf("deploy/launch.sh"), "does-not-exist.yaml", "3", "1"], {
    encoding: "utf8",
  });
  expect(run.status).toBe(2);
  expect(run.stderr).toContain("does-not-exist.yaml");
});
