/** One coordinator and L learner processes that sum a gradient as a run does; the slowest learner's time. */
import { fork, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { builtFile } from "../../shared/paths.js";
import type { AllReduceSettings, FromProcess, ToProcess } from "../all-reduce-process.js";
import type { Lap, Side } from "./side.js";

class Participant {
  private readonly child: ChildProcess;

  constructor(settings: AllReduceSettings) {
    this.child = fork(builtFile("src/bench/all-reduce-process"), [JSON.stringify(settings)]);
  }

  async ask<K extends FromProcess["kind"]>(
    kind: K,
    message?: ToProcess,
  ): Promise<Extract<FromProcess, { kind: K }>> {
    if (message !== undefined) this.child.send(message);
    const [answer] = (await Promise.race([
      once(this.child, "message"),
      once(this.child, "exit").then(() => Promise.reject(new Error("a process of the all-reduce ended"))),
    ])) as [FromProcess];
    if (answer.kind !== kind) throw new Error(`expected ${kind}, got ${JSON.stringify(answer)}`);
    return answer as Extract<FromProcess, { kind: K }>;
  }

  async end(): Promise<void> {
    if (this.child.exitCode !== null) return;
    this.child.disconnect();
    await once(this.child, "exit");
  }
}

export async function open(config: Omit<AllReduceSettings, "rank" | "coordinator">): Promise<Side> {
  const coordinator = new Participant({ ...config, rank: -1, coordinator: "" });
  const { address } = await coordinator.ask("listening");
  const learners = Array.from(
    { length: config.learners },
    (_, rank) => new Participant({ ...config, rank, coordinator: address }),
  );
  const bulkPorts = await Promise.all(learners.map(async (one) => (await one.ask("ready")).bulkPort));
  let step = 0;
  return {
    async repeat(): Promise<Lap> {
      step += 1;
      const { exchange } = await coordinator.ask("opened", { kind: "open", step, bulkPorts });
      await Promise.all(learners.map((one) => one.ask("prepared", { kind: "prepare", step, exchange })));
      const laps = await Promise.all(
        learners.map((one) => one.ask("reduced", { kind: "reduce", step, exchange })),
      );
      if (new Set(laps.map(({ hash }) => hash)).size !== 1) throw new Error("the learners' sums differ");
      const { cpuSeconds } = await coordinator.ask("closed", { kind: "close" });
      return {
        units: 1,
        seconds: Math.max(...laps.map((lap) => lap.seconds)),
        cpuSeconds: laps.reduce((sum, lap) => sum + lap.cpuSeconds, cpuSeconds),
      };
    },
    async close() {
      await Promise.all([...learners, coordinator].map((one) => one.end()));
    },
  };
}
