import { totalmem } from "node:os";
import { describe, expect, it } from "vitest";
import { cgroupLimitBytes, machineMemory } from "../../../src/shared/machine-memory.js";

const GIB = 2 ** 30;
const NO_LIMIT_V1 = "9223372036854771712\n";
const limitOf = (files: Record<string, string>) => cgroupLimitBytes((path) => files[path]);

describe("the memory limit of control groups", () => {
  it.each<[string, Record<string, string>, number | undefined]>([
    [
      "of a container: the root's",
      { "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": `${4 * GIB}\n` },
      4 * GIB,
    ],
    [
      "of a Slurm job: of a group around the process's own",
      {
        "/proc/self/cgroup": "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n",
        "/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/step_0/user/task_0/memory.max": "max\n",
        "/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/step_0/memory.max": `${16 * GIB}\n`,
        "/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/memory.max": `${12 * GIB}\n`,
      },
      12 * GIB,
    ],
    [
      "of a systemd unit with MemoryMax",
      {
        "/proc/self/cgroup": "0::/system.slice/troupe-worker@rollout.service\n",
        "/sys/fs/cgroup/system.slice/troupe-worker@rollout.service/memory.max": `${2 * GIB}\n`,
      },
      2 * GIB,
    ],
    [
      "of version 1",
      {
        "/proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/jobs/7\n0::/\n",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT_V1,
        "/sys/fs/cgroup/memory/jobs/7/memory.limit_in_bytes": `${3 * GIB}\n`,
      },
      3 * GIB,
    ],
    [
      "in a container that shows the host's path",
      { "/proc/self/cgroup": "0::/docker/abc\n", "/sys/fs/cgroup/memory.max": `${5 * GIB}\n` },
      5 * GIB,
    ],
    [
      "nowhere",
      { "/proc/self/cgroup": "0::/user.slice\n", "/sys/fs/cgroup/user.slice/memory.max": "max\n" },
      undefined,
    ],
    ["without control groups", {}, undefined],
  ])("is found %s", (_, files, expected) => expect(limitOf(files)).toBe(expected));
});

describe("this machine", () => {
  it("has no more than it is made of, and no more free than usable", () => {
    const { usableBytes, freeBytes } = machineMemory();
    expect(usableBytes).toBeLessThanOrEqual(totalmem());
    expect(freeBytes).toBeGreaterThan(0);
    expect(freeBytes).toBeLessThanOrEqual(usableBytes);
  });
});
