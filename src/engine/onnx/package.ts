import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const require = createRequire(import.meta.url);

/** Where onnxruntime-node is installed. */
export const packageFolder = (): string => dirname(require.resolve("onnxruntime-node/package.json"));

/** Version of the installed onnxruntime-node. */
export function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(join(packageFolder(), "package.json"), "utf8")) as {
    version: string;
  };
  return version;
}

/** The ONNX Runtime library that onnxruntime-node bundles for this platform. It may not exist. */
export function bundledLibraryPath(): string {
  const names: Partial<Record<NodeJS.Platform, string>> = {
    linux: "libonnxruntime.so.1",
    darwin: "libonnxruntime.1.dylib",
    win32: "onnxruntime.dll",
  };
  return join(libraryFolder(), names[process.platform] ?? "libonnxruntime.so.1");
}

/** Where it has its native libraries. */
export const libraryFolder = (): string =>
  join(packageFolder(), "bin", "napi-v6", process.platform, process.arch);
