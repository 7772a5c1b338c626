// Installs the native library of @tensorflow/tfjs-node-gpu, which the tensorflow engine needs and the onnx engine does
// not. Without arguments it downloads, the one step of Troupe that does so beyond `npm ci`; with --libtensorflow it
// builds the add-on against a library that is already on this machine.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, realpathSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";

const USAGE = `usage: npm run setup:gpu [-- --libtensorflow DIR]

  Without --libtensorflow: downloads libtensorflow 2.9.1 and the ready add-on, or builds the add-on where none is ready.
    TFJS_NODE_BASE_URI   fetch libtensorflow from here instead of storage.googleapis.com; the start of the address, to
                         which gpu-linux-x86_64-2.9.1.tar.gz is added: https://mirror.example/libtensorflow-
    HTTPS_PROXY          honoured

  --libtensorflow DIR    an unpacked libtensorflow archive (lib/ and include/), or the folder "tensorflow" of an
                         unpacked tensorflow wheel (2.12 or later). Downloads nothing; compiles the add-on with $CXX
                         (default: c++) and refers to DIR, which must stay where it is. Linux and macOS.
    NODE_INCLUDE         folder of node_api.h, when it is not beside this Node: …/include/node`;

const require = createRequire(import.meta.url);
const say = (line = "") => process.stdout.write(`${line}\n`);

function stop(...lines) {
  for (const line of lines) process.stderr.write(`${line}\n`);
  process.exit(1);
}

const { values: options } = parseArguments();
if (options.help) {
  say(USAGE);
  process.exit(0);
}
const packageFolder = findPackage();
if (options.libtensorflow === undefined) download();
else build(resolve(options.libtensorflow));
verify();

function parseArguments() {
  try {
    return parseArgs({
      options: { libtensorflow: { type: "string" }, help: { type: "boolean", short: "h" } },
    });
  } catch (error) {
    process.stderr.write(`${error.message}\n\n${USAGE}\n`);
    process.exit(2);
  }
}

function findPackage() {
  try {
    return dirname(require.resolve("@tensorflow/tfjs-node-gpu/package.json"));
  } catch {
    return stop("@tensorflow/tfjs-node-gpu is not installed; run `npm ci` first");
  }
}

/** The package's own install script, which `ignore-scripts` in .npmrc keeps from running at `npm ci`. */
function download() {
  const from =
    process.env.TFJS_NODE_BASE_URI ??
    "https://storage.googleapis.com/tensorflow/libtensorflow/libtensorflow-";
  say(`Fetching libtensorflow from ${from}…`);
  const command = ["rebuild", "--ignore-scripts=false", "--foreground-scripts", "@tensorflow/tfjs-node-gpu"];
  const { status } = spawnSync("npm", command, { stdio: "inherit", shell: process.platform === "win32" });
  if (status === 0 && findAddon() !== undefined) return;
  stop(
    "",
    `The native library was not installed (npm exit code ${status}). Usual causes:`,
    "  no network to the host above: set TFJS_NODE_BASE_URI or HTTPS_PROXY, or fetch the archive elsewhere, unpack it,",
    "    and run `npm run setup:gpu -- --libtensorflow DIR`",
    "  no ready add-on for this platform: Python 3, a C++ compiler and Node's headers are needed to build it",
  );
}

/** Compiles the package's N-API add-on against the library in `folder`, with that folder as its run-time path. */
function build(folder) {
  if (process.platform === "win32")
    stop("--libtensorflow works on Linux and macOS; run without it on Windows");
  const library = findLibrary(folder);
  const include = join(folder, "include");
  need(join(include, "tensorflow", "c", "eager", "c_api.h"), "libtensorflow's headers");
  const nodeInclude = process.env.NODE_INCLUDE ?? findNodeHeaders();
  need(join(nodeInclude, "node_api.h"), "Node's headers (set NODE_INCLUDE)");

  const napi = napiVersion();
  const addon = join(packageFolder, "lib", `napi-v${napi}`, "tfjs_binding.node");
  mkdirSync(dirname(addon), { recursive: true });
  const compiler = process.env.CXX ?? "c++";
  const sources = ["tfjs_backend.cc", "tfjs_binding.cc"].map((file) => join(packageFolder, "binding", file));
  const libraryFolder = dirname(library);
  const framework = readdirSync(libraryFolder).find((file) =>
    /^libtensorflow_framework\.(so|2\.dylib|dylib)/.test(file),
  );
  const command = [
    ...["-shared", "-fPIC", "-O2", "-std=c++17", `-DNAPI_VERSION=${napi}`, "-I", nodeInclude, "-I", include],
    ...sources,
    library,
    ...(framework === undefined ? [] : [join(libraryFolder, framework)]),
    `-Wl,-rpath,${libraryFolder}`,
    ...(process.platform === "darwin" ? ["-undefined", "dynamic_lookup"] : []),
    ...["-o", addon],
  ];
  say(`Library   ${library}`);
  say(`Headers   ${include}, ${nodeInclude}`);
  say(`Building  ${addon}`);
  const { status, error } = spawnSync(compiler, command, { stdio: "inherit" });
  if (error !== undefined)
    stop(`${compiler} does not start (${error.message}); install a C++ compiler or set CXX`);
  if (status !== 0) stop(`${compiler} failed with exit code ${status}; it ran with: ${command.join(" ")}`);
}

/** libtensorflow.so.2 of an archive, or a wheel's libtensorflow_cc.so.2, which exports the same C functions. */
function findLibrary(folder) {
  if (!existsSync(folder) || !statSync(folder).isDirectory())
    stop(`--libtensorflow: ${folder} is not a folder`);
  const names = [
    "libtensorflow.so.2",
    "libtensorflow_cc.so.2",
    "libtensorflow.2.dylib",
    "libtensorflow_cc.2.dylib",
  ];
  const found = [join(folder, "lib"), folder]
    .flatMap((at) => names.map((name) => join(at, name)))
    .find(existsSync);
  if (found !== undefined) return found;
  return stop(
    `--libtensorflow: ${folder} holds none of ${names.join(", ")}, nor does its folder lib.`,
    "Give the folder that an archive libtensorflow-gpu-linux-x86_64-2.9.1.tar.gz was unpacked into, or the folder",
    '"tensorflow" of an unpacked wheel of tensorflow 2.12 or later (older wheels have no library of their own).',
  );
}

/** …/bin/node has its headers in …/include/node. */
function findNodeHeaders() {
  return join(dirname(dirname(realpathSync(process.execPath))), "include", "node");
}

function need(path, what) {
  if (!existsSync(path)) stop(`${what} are missing: no file ${path}`);
}

/** The newest N-API version that both the package and this Node know: where the package looks for its add-on. */
function napiVersion() {
  const { binary } = require("@tensorflow/tfjs-node-gpu/package.json");
  return Math.max(...binary.napi_versions.filter((version) => version <= Number(process.versions.napi)));
}

function findAddon() {
  const folder = join(packageFolder, "lib");
  if (!existsSync(folder)) return undefined;
  return readdirSync(folder)
    .map((abi) => join(folder, abi, "tfjs_binding.node"))
    .find((path) => existsSync(path));
}

/** Loads the add-on in a fresh process and multiplies two matrices. */
function verify() {
  const addon = findAddon();
  const program = `
    const tf = require("@tensorflow/tfjs-node-gpu");
    const product = tf.matMul(tf.ones([2, 2]), tf.ones([2, 2])).dataSync();
    if (product.some((value) => value !== 2)) throw new Error("matMul gave " + product);
    const { isUsingGpuDevice, binding } = tf.backend();
    console.log(JSON.stringify({ version: binding.TF_Version, device: isUsingGpuDevice ? "GPU" : "CPU" }));`;
  const env = { ...process.env, TF_CPP_MIN_LOG_LEVEL: "2" };
  const check = spawnSync(process.execPath, ["-e", program], { cwd: packageFolder, encoding: "utf8", env });
  say();
  if (check.status !== 0)
    stop(`${addon} is there but does not load:`, check.stderr || `signal ${check.signal}`);
  const { version, device } = JSON.parse(check.stdout.trim().split("\n").at(-1));
  say(`${basename(addon)} loads: libtensorflow ${version}, computing on the ${device}`);
  if (device !== "GPU") {
    say(
      "To use a GPU, libtensorflow must be a GPU build for the CUDA installed here: 2.9.1 needs CUDA 11.2-11.8 and",
    );
    say(
      "cuDNN 8. Check that `nvidia-smi` lists the GPU and `ldconfig -p | grep -E 'cudart|cublas|cudnn'` shows",
    );
    say("libcudart.so.11.0, libcublas.so.11 and libcudnn.so.8, then run this again.");
  }
  say();
  say("Verify   node bin/troupe.mjs doctor, and npm run test:gpu");
  say("Use      engine.name: tensorflow (auto takes it when it computes on a GPU, else onnx)");
}
