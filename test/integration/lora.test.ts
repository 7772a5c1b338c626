import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { PATIENCE_MS, RunFolder } from "../helpers/tiny-run.js";

const folder = new RunFolder();
afterAll(() => folder.remove());

describe("a run of three stages with adapters", { timeout: 2 * PATIENCE_MS }, () => {
  it("publishes versions of adapters alone, and samples the same on 1 and 2 rollout workers", async () => {
    const set = ["model.lora={rank: 2}", "sft.optimizer.learningRate=0.02", "ppo.iterations=2"];
    const start = (name: string, rollouts: number) =>
      folder.start(
        name,
        [...set, `cluster.rollouts=${rollouts}`].flatMap((one) => ["--set", one]),
      );
    const two = await start("two", 2);
    const { ppo, model, stateSha256 } = await two.finish();
    expect(ppo.experiences.trained).toBe(32);
    expect(Number.isFinite(ppo.klToRef)).toBe(true);
    const whole = (await stat(join(model, "model.safetensors"))).size;
    for (const role of ["actor", "critic"]) {
      const { size } = await stat(join(two.runDir, "artifacts", role, "2.safetensors"));
      expect(size).toBeLessThan(0.25 * whole);
    }
    const one = await start("one", 1);
    expect((await one.finish()).stateSha256).toBe(stateSha256);
  });

  it("names the base of each adapter also when the stages are commands of their own", async () => {
    const set = ["--set", "model.lora={rank: 2}", "--set", "ppo.iterations=1"];
    const sft = await folder.start("apart", [...set, "--set", "stages=[sft]"]);
    await sft.finish();
    const rest = await folder.start("apart", [...set, "--set", "stages=[reward, ppo]", "--resume", "auto"]);
    await rest.finish();
    const baseOf = async (stage: string) => {
      const path = join(rest.runDir, "models", `${stage}-adapter`, "adapter_config.json");
      return (JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>).base_model_name_or_path;
    };
    const sftModel = join(rest.runDir, "models", "sft");
    expect([await baseOf("sft"), await baseOf("reward"), await baseOf("ppo")]).toEqual([
      null,
      sftModel,
      sftModel,
    ]);
  });
});
