// Installs the native library of @tensorflow/tfjs-node-gpu: the one step of Troupe that downloads anything
// beyond `npm ci`. The tensorflow engine needs it; the onnx engine does not.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const require = createRequire(import.meta.url);
const say = (line = "") => process.stdout.write(`${line}\n`);

if (process.argv.includes("--help")) {
  say("usage: npm run setup:gpu");
  say("  Downloads libtensorflow and the Node add-on, or builds the add-on where no ready one exists.");
  say("  TFJS_NODE_BASE_URI   prefix to fetch libtensorflow from instead of storage.googleapis.com, e.g.");
  say("                       https://mirror.example/libtensorflow/libtensorflow-");
  say("  HTTPS_PROXY          honoured");
  process.exit(0);
}

let folder;
try {
  folder = dirname(require.resolve("@tensorflow/tfjs-node-gpu/package.json"));
} catch {
  say("@tensorflow/tfjs-node-gpu is not installed; run `npm ci` first");
  process.exit(2);
}

const library = process.env.TFJS_NODE_BASE_URI ?? "https://storage.googleapis.com/tensorflow/libtensorflow/";
say(`Fetching libtensorflow from ${library}`);
say("It uses the GPU on Linux x64 with: an NVIDIA driver, CUDA 11.2-11.8, cuDNN 8.1 or newer 8.x");
say(
  "(libcudart.so.11.0, libcublas.so.11, libcudnn.so.8 on the loader's path). Without them it runs on the CPU.",
);
say();

const rebuild = spawnSync("npm", ["rebuild", "--ignore-scripts=false", "@tensorflow/tfjs-node-gpu"], {
  stdio: "inherit",
  shell: process.platform === "win32",
});

const native = join(folder, "lib");
const addon = existsSync(native)
  ? readdirSync(native)
      .map((abi) => join(native, abi, "tfjs_binding.node"))
      .find((path) => existsSync(path))
  : undefined;
if (rebuild.status !== 0 || addon === undefined) {
  say();
  say(`The native library was not installed (npm exit code ${rebuild.status}). Usual causes:`);
  say("  no network to the host above: set TFJS_NODE_BASE_URI or HTTPS_PROXY");
  say("  no ready add-on for this platform: Python 3 and a C++ compiler are needed to build it");
  process.exit(1);
}

say();
say(`Installed ${addon}`);
const check = spawnSync(
  process.execPath,
  [
    "-e",
    "const tf=require('@tensorflow/tfjs-node-gpu');" +
      "tf.ready().then(()=>{const y=tf.matMul(tf.ones([2,2]),tf.ones([2,2])).dataSync()[0];" +
      "if(y!==2)throw new Error('matMul gave '+y);" +
      "console.log(tf.backend().isUsingGpuDevice?'GPU':'CPU')})",
  ],
  { cwd: folder, encoding: "utf8", env: { ...process.env, TF_CPP_MIN_LOG_LEVEL: "2" } },
);
if (check.status !== 0) {
  say(`but it does not load:\n${check.stderr}`);
  process.exit(1);
}
const device = check.stdout.trim().split("\n").at(-1);
say(`It loads and computes on the ${device}.`);
if (device !== "GPU") {
  say(
    "To use the GPU: check that `nvidia-smi` lists it, and that `ldconfig -p | grep -E 'cudart|cublas|cudnn'`",
  );
  say("shows CUDA 11 and cuDNN 8. Then run this again.");
}
say("Verify any time with `npx troupe doctor`; use it with `engine.name: tensorflow` (or auto).");
