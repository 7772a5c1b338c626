/** Whether ONNX Runtime's CUDA provider can be loaded: the npm package is published without it. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { configError } from "../../shared/errors.js";
import { libraryFolder, packageFolder } from "./package.js";

/** What ONNX Runtime loads for it, from the folder of its own library. */
const LIBRARIES = ["libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"];

/** @throws {TroupeError} CONFIG when its libraries are missing in `folder`, naming them and how to get them */
export function requireCudaProvider(
  folder = libraryFolder(),
  platform = `${process.platform} ${process.arch}`,
): void {
  const otherwise = "choose `engine.provider: cpu`, or `engine.name: tensorflow` for CUDA";
  if (platform !== "linux x64")
    throw configError(`engine.provider cuda: ONNX Runtime for Node has none for ${platform}; ${otherwise}`);
  const missing = LIBRARIES.filter((name) => !existsSync(join(folder, name)));
  if (missing.length === 0) return;
  throw configError(
    `engine.provider cuda needs ${missing.join(" and ")} in ${folder}; ` +
      `\`node ${join(packageFolder(), "script", "install.js")}\` fetches the libraries for CUDA 12; else ${otherwise}`,
  );
}
