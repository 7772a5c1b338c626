/** However gradients travel, and whoever adds them, the parameters are the same to the last bit. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RunStatus } from "../../src/rpc/control-client.js";
import { PATIENCE_MS, RunFolder } from "../helpers/tiny-run.js";

const folder = new RunFolder();
const start = (name: string, sets: Readonly<Record<string, string | number>>) =>
  folder.start(
    name,
    Object.entries({ "ppo.iterations": 3, "cluster.rollouts": 1, ...sets }).flatMap(([key, value]) => [
      "--set",
      `${key}=${value}`,
    ]),
  );
const hashOf = async (name: string, sets: Readonly<Record<string, string | number>>): Promise<string> =>
  (await (await start(name, sets)).finish()).stateSha256;

let star: string;
beforeAll(async () => {
  star = await hashOf("star", { "cluster.learners": 1, "cluster.allReduce": "star" });
}, PATIENCE_MS);
afterAll(() => folder.remove());

describe("the final state of a run", { timeout: 2 * PATIENCE_MS }, () => {
  it("is that of one learner when gradients go through gRPC", async () => {
    expect(await hashOf("grpc", { "cluster.learners": 2, "cluster.bulkChannel": "off" })).toBe(star);
  });

  it("is that of one learner when two send theirs to the coordinator over the bulk channel", async () => {
    expect(await hashOf("bulk", { "cluster.learners": 2, "cluster.allReduce": "star" })).toBe(star);
  });

  it("is that of one learner when three sum among themselves, and one of them is killed meanwhile", async () => {
    const run = await start("sharded", { "cluster.learners": 3 });
    const learnersOf = ({ workers }: RunStatus) => workers.filter(({ role }) => role === "learner");
    const status = await run.until(
      (now) => ["reward", "ppo"].includes(now.stage) && learnersOf(now).length === 3,
    );
    process.kill(learnersOf(status)[1].pid, "SIGKILL");
    expect((await run.finish()).stateSha256).toBe(star);
    expect(run.output).toMatch(/learner-\d.*SIGKILL/);
  });

  it("is another one with bf16 on the wire, but the same for one learner and three", async () => {
    const alone = await hashOf("bf16-1", { "cluster.learners": 1, "cluster.wire": "bf16" });
    expect(alone).not.toBe(star);
    const sets = { "cluster.learners": 3, "cluster.wire": "bf16", "cluster.allReduce": "sharded" };
    expect(await hashOf("bf16-3", sets)).toBe(alone);
  });
});
