/** The checks of `troupe doctor`, one function per line of its report. */
import { statfs } from "node:fs/promises";
import { createServer } from "node:net";
import { availableParallelism } from "node:os";
import { chooseEngine, hostFacts, requireEngineLibrary, tensorflowLibraryPath } from "../engine/choice.js";
import { createEngine } from "../engine/create-engine.js";
import { loadConfig } from "../config/load.js";
import type { Config } from "../config/schema.js";
import { describeError } from "../shared/errors.js";
import { machineMemory } from "../shared/machine-memory.js";
import { deviceMemoryBytes } from "../shared/device-memory.js";
import { gib } from "./memory-check.js";
import { advice, knobs } from "./memory-knobs.js";
import { estimateMemory, type MemoryEstimate, type MemoryPart } from "./memory-estimate.js";

export interface DoctorOptions {
  readonly config?: string;
  readonly set?: readonly string[];
  readonly port?: readonly number[];
}

type Verdict = "ok" | "note" | "FAIL";

interface Finding {
  readonly verdict: Verdict;
  readonly subject: string;
  readonly text: string;
}

export async function examine(options: DoctorOptions): Promise<{ lines: string[]; isHealthy: boolean }> {
  const findings = [
    checkNode(process.versions.node),
    checkCores(),
    checkMemory(),
    await checkDisk(),
    ...(await checkEngines()),
    ...(await Promise.all((options.port ?? [0]).map(checkPort))),
    ...(options.config === undefined ? [] : await checkConfig(options.config, options.set)),
  ];
  const width = Math.max(...findings.map(({ subject }) => subject.length));
  const lines = findings.map(
    ({ verdict, subject, text }) => `${verdict.padEnd(4)}  ${subject.padEnd(width)}  ${text}`,
  );
  return { lines, isHealthy: findings.every(({ verdict }) => verdict !== "FAIL") };
}

/** 20.19 is the first Node 20 that the pinned tools accept. */
function checkNode(version: string): Finding {
  const [major, minor] = version.split(".").map(Number);
  const isEnough = major > 20 || (major === 20 && minor >= 19);
  const text = isEnough ? version : `${version} is too old; install 20.19 or later`;
  return {
    verdict: isEnough ? "ok" : "FAIL",
    subject: "node",
    text: `${text} (${process.platform} ${process.arch})`,
  };
}

function checkCores(): Finding {
  const cores = availableParallelism();
  const text = `${cores} usable${cores < 2 ? ": rollout and learner take turns" : ""}`;
  return { verdict: cores < 2 ? "note" : "ok", subject: "cores", text };
}

function checkMemory(): Finding {
  const { usableBytes, freeBytes, isContainerLimit } = machineMemory();
  const text = `${gib(usableBytes)} usable${isContainerLimit ? " (container limit)" : ""}, ${gib(freeBytes)} free now`;
  return { verdict: usableBytes < 2 * 2 ** 30 ? "note" : "ok", subject: "memory", text };
}

async function checkDisk(): Promise<Finding> {
  try {
    const { bavail, bsize } = await statfs(process.cwd());
    const free = bavail * bsize;
    return {
      verdict: free < 2 ** 30 ? "note" : "ok",
      subject: "disk",
      text: `${gib(free)} free in ${process.cwd()}`,
    };
  } catch (error) {
    return {
      verdict: "note",
      subject: "disk",
      text: `free space of ${process.cwd()} is unknown: ${describeError(error)}`,
    };
  }
}

async function checkEngines(): Promise<Finding[]> {
  const { hasCudaDevice } = hostFacts();
  const library = tensorflowLibraryPath();
  const choice = chooseEngine();
  const gpu: Finding = {
    verdict: "ok",
    subject: "gpu",
    text: hasCudaDevice ? "CUDA device visible" : "none visible; the CPU computes",
  };
  const tensorflow: Finding =
    library !== null
      ? { verdict: "ok", subject: "tensorflow", text: `native library ${library}` }
      : {
          verdict: hasCudaDevice ? "note" : "ok",
          subject: "tensorflow",
          text: "native library not installed (npm run setup:gpu fetches it; only for CUDA machines)",
        };
  const chosen: Finding = {
    verdict: "ok",
    subject: "engine",
    text: `auto picks ${choice.name} (${choice.reason})`,
  };
  return [gpu, await checkOnnx(choice.name), tensorflow, chosen];
}

async function checkOnnx(chosen: string): Promise<Finding> {
  try {
    const { engine } = await createEngine({ name: "onnx" });
    const text = engine.description;
    await engine.dispose();
    return { verdict: "ok", subject: "onnx", text };
  } catch (error) {
    return { verdict: chosen === "onnx" ? "FAIL" : "note", subject: "onnx", text: describeError(error) };
  }
}

/** @param port 0 = any */
function checkPort(port: number): Promise<Finding> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", (error) => {
      resolve({
        verdict: "FAIL",
        subject: "port",
        text: `${port === 0 ? "none" : port} cannot be listened on: ${error.message}`,
      });
    });
    server.listen(port, "127.0.0.1", () => {
      server.close(() =>
        resolve({
          verdict: "ok",
          subject: "port",
          text: port === 0 ? "free ports on 127.0.0.1" : `${port} is free`,
        }),
      );
    });
  });
}

async function checkConfig(file: string, sets: readonly string[] | undefined): Promise<Finding[]> {
  const { config, warnings } = await loadConfig({ file, sets, env: process.env });
  const notes = [
    ...warnings.map((text): Finding => ({ verdict: "note", subject: "config", text })),
    ...checkEngineLibrary(config),
  ];
  const estimate = await estimateMemory(config).catch((error: unknown) => describeError(error));
  if (typeof estimate === "string") return [...notes, { verdict: "FAIL", subject: "model", text: estimate }];
  const perProcess = estimate.processes.map(({ role, count, stage, parts, bytes }): Finding => {
    const sum = sumText(parts.filter(({ isOnDevice = false }) => !isOnDevice));
    return { verdict: "ok", subject: role, text: `${count} × ${gib(bytes)} at most, in ${stage}: ${sum}` };
  });
  return [
    ...notes,
    { verdict: "ok", subject: "model", text: `${(estimate.parameters / 1e6).toFixed(1)} M parameters` },
    ...perProcess,
    ...(await deviceFindings(config, estimate)),
    await memoryVerdict(config, estimate),
  ];
}

const sumText = (parts: readonly MemoryPart[]): string =>
  parts.map(({ name, bytes }) => `${name} ${gib(bytes)}`).join(" + ");

function checkEngineLibrary({ engine }: Config): Finding[] {
  try {
    requireEngineLibrary(engine);
    return [];
  } catch (error) {
    return [{ verdict: "FAIL", subject: "engine", text: describeError(error) }];
  }
}

/** What each worker needs on its GPU, against the smallest there is. Not measured: a note, never a refusal. */
async function deviceFindings(config: Config, { processes }: MemoryEstimate): Promise<Finding[]> {
  const hasBytes = await deviceMemoryBytes();
  const findings: Finding[] = [];
  for (const { role, deviceBytes, parts } of processes) {
    if (deviceBytes === 0) continue;
    const isTooMuch = hasBytes !== null && deviceBytes > hasBytes;
    const onDevice = (of: MemoryEstimate) => of.processes.find((one) => one.role === role)?.deviceBytes ?? 0;
    findings.push({
      verdict: isTooMuch ? "note" : "ok",
      subject: "device",
      text:
        `each ${role} keeps about ${gib(deviceBytes)} on its GPU` +
        (hasBytes === null ? "" : `, which has ${gib(hasBytes)}`) +
        ` (estimated, not measured): ${sumText(parts.filter(({ isOnDevice }) => isOnDevice))}` +
        (isTooMuch ? `.${advice(await knobs(config, onDevice))}` : ""),
    });
  }
  return findings;
}

async function memoryVerdict(config: Config, { totalBytes }: MemoryEstimate): Promise<Finding> {
  const { usableBytes, freeBytes } = machineMemory();
  const text = `the run needs about ${gib(totalBytes)} here; ${gib(usableBytes)} usable, ${gib(freeBytes)} free now`;
  if (totalBytes > usableBytes) {
    return { verdict: "FAIL", subject: "memory", text: `${text}.${advice(await knobs(config))}` };
  }
  return { verdict: totalBytes > freeBytes ? "note" : "ok", subject: "memory", text };
}
