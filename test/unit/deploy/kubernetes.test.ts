import { spawnSync } from "node:child_process";
import { expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import { filesUnder, pathOf, readYaml } from "./repository.js";

interface Probe {
  httpGet: { path: string; port: string };
}
interface Container {
  image: string;
  ports: { name: string; containerPort: number }[];
  startupProbe: Probe;
  livenessProbe: Probe;
  readinessProbe: Probe;
  securityContext: object;
  volumeMounts: { name: string }[];
}
interface PodSpec {
  containers: Container[];
  volumes: {
    name: string;
    secret?: { secretName: string; defaultMode: number };
    configMap?: { name: string };
  }[];
  securityContext: object;
  automountServiceAccountToken: boolean;
  terminationGracePeriodSeconds: number;
}
interface Manifest {
  kind: string;
  metadata: { name: string; namespace?: string };
  spec: {
    replicas?: number;
    template: { spec: PodSpec };
    volumeClaimTemplates?: { metadata: { name: string } }[];
    podSelector: { matchLabels?: object };
  };
}

const hasKubectl = spawnSync("kubectl", ["version", "--client"]).status === 0;
const base = filesUnder("deploy/kubernetes/base")
  .filter((file) => !/kustomization|run\.yaml/.test(file))
  .flatMap((file) => readYaml(file) as Manifest[]);
const workloads = base.filter(({ kind }) => kind === "StatefulSet" || kind === "Deployment");

function kustomize(folder: string): Manifest[] {
  const run = spawnSync("kubectl", ["kustomize", pathOf(folder)], { encoding: "utf8" });
  expect(run.stderr).toBe("");
  return parseAllDocuments(run.stdout).map((document) => document.toJS() as Manifest);
}

test("there is one coordinator with a disk, and workers of both roles", () => {
  expect(workloads.map(({ kind, metadata }) => `${kind}/${metadata.name}`).sort()).toEqual([
    "Deployment/troupe-rollout",
    "StatefulSet/troupe-coordinator",
    "StatefulSet/troupe-learner",
  ]);
  const coordinator = workloads.find(({ metadata }) => metadata.name === "troupe-coordinator");
  expect(coordinator?.spec.replicas).toBe(1);
  expect(coordinator?.spec.volumeClaimTemplates?.map(({ metadata }) => metadata.name)).toEqual(["runs"]);
});

test.each(workloads.map((workload) => [workload.metadata.name, workload] as const))(
  "%s is locked down, probed on its own health only, and mounts only volumes it has",
  (name, { spec }) => {
    const pod = spec.template.spec;
    const [container] = pod.containers;
    expect(pod.securityContext).toMatchObject({
      runAsNonRoot: true,
      seccompProfile: { type: "RuntimeDefault" },
    });
    expect(container.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
    });
    expect(pod.automountServiceAccountToken).toBe(false);
    expect(pod.terminationGracePeriodSeconds).toBeGreaterThanOrEqual(30);
    expect(container.livenessProbe.httpGet).toEqual({ path: "/healthz", port: "http" });
    expect(container.startupProbe.httpGet).toEqual({ path: "/healthz", port: "http" });
    expect(container.readinessProbe.httpGet).toEqual({ path: "/readyz", port: "http" });
    expect(container.ports).toContainEqual({ name: "http", containerPort: 9464 });
    const volumes = [
      ...pod.volumes.map(({ name }) => name),
      ...(spec.volumeClaimTemplates ?? []).map((c) => c.metadata.name),
    ];
    for (const mount of container.volumeMounts) expect(volumes).toContain(mount.name);
    // The program refuses a token file that every user can read.
    const token = pod.volumes.find(({ secret }) => secret !== undefined)?.secret;
    expect(token?.secretName).toBe(
      name === "troupe-coordinator" ? "troupe-token" : name.replace("troupe", "troupe-token"),
    );
    expect((token?.defaultMode ?? 0o777) & 0o007).toBe(0);
  },
);

test.skipIf(!hasKubectl)(
  "(needs kubectl) kustomize renders the base: namespace, hashed run file, image",
  () => {
    const rendered = kustomize("deploy/kubernetes/base");
    const kinds = rendered.map(({ kind }) => kind).sort();
    expect(kinds).toEqual([
      ...["ConfigMap", "Deployment", "Namespace", "NetworkPolicy", "NetworkPolicy", "PodDisruptionBudget"],
      ...["PodDisruptionBudget", "Service", "Service", "ServiceAccount", "StatefulSet", "StatefulSet"],
    ]);
    for (const { kind, metadata } of rendered)
      if (kind !== "Namespace") expect(metadata.namespace).toBe("troupe");
    const configMap = rendered.find(({ kind }) => kind === "ConfigMap")?.metadata.name;
    expect(configMap).toMatch(/^troupe-run-[a-z0-9]+$/);
    const coordinator = rendered.find(
      ({ kind, metadata }) => kind === "StatefulSet" && metadata.name === "troupe-coordinator",
    );
    const pod = coordinator?.spec.template.spec;
    expect(pod?.volumes.some((volume) => volume.configMap?.name === configMap)).toBe(true);
    expect(pod?.containers[0].image).toMatch(/^troupe:/);
    for (const { kind, spec } of rendered) {
      if (kind === "NetworkPolicy")
        expect(spec.podSelector.matchLabels).toMatchObject({ "app.kubernetes.io/name": "troupe" });
    }
  },
);

test.skipIf(!hasKubectl)(
  "(needs kubectl) the autoscale overlay hands the number of rollout workers to the autoscaler",
  () => {
    const rendered = kustomize("deploy/kubernetes/overlays/autoscale");
    const deployment = rendered.find(({ kind }) => kind === "Deployment");
    expect(deployment?.spec.replicas).toBeUndefined();
    expect(rendered.filter(({ kind }) => kind === "HorizontalPodAutoscaler")).toHaveLength(1);
  },
);
