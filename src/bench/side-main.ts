/** Process entry: `node side-main.js SIDE CONFIG`. Our side of a benchmark; the protocol is in ./contest. */
import { createInterface } from "node:readline";
import { packageVersion } from "../shared/paths.js";
import { SIDES, type SideName } from "./sides/index.js";

const say = (message: object): void => void process.stdout.write(`${JSON.stringify(message)}\n`);

const [name, config] = [process.argv[2] as SideName, process.argv[3]];
const { open } = await SIDES[name]();
const side = await open(JSON.parse(config) as never);
say({ ready: true, version: `troupe ${packageVersion}`, facts: side.facts ?? {} });
for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim() !== "go") break;
  const cpu = process.cpuUsage();
  const started = performance.now();
  const lap = await side.repeat();
  const elapsed = { seconds: (performance.now() - started) / 1000 };
  const { user, system } = process.cpuUsage(cpu);
  // ru_maxrss of this process, KiB
  const peakMb = process.resourceUsage().maxRSS / 1024;
  const counted = typeof lap === "number" ? { units: lap, ...elapsed } : lap;
  say({ cpuSeconds: (user + system) / 1e6, peakMb, ...counted });
}
await side.close();
process.exit(0);
