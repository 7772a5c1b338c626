import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const require = createRequire(import.meta.url);

const folder = (): string => dirname(require.resolve("onnxruntime-node/package.json"));

/** Version of the installed onnxruntime-node. */
export function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(join(folder(), "package.json"), "utf8")) as { version: string };
  return version;
}

/** The ONNX Runtime library that onnxruntime-node bundles for this platform. It may not exist. */
export function bundledLibraryPath(): string {
  const names: Partial<Record<NodeJS.Platform, string>> = {
    linux: "libonnxruntime.so.1",
    darwin: "libonnxruntime.1.dylib",
    win32: "onnxruntime.dll",
  };
  const name = names[process.platform] ?? "libonnxruntime.so.1";
  return join(folder(), "bin", "napi-v6", process.platform, process.arch, name);
}
