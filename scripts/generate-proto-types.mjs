// Writes src/rpc/generated/ from proto/ (or, with --check, fails when it is not fresh). No protoc needed.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";

const target = "src/rpc/generated";
const isCheck = process.argv.includes("--check");
const outDir = isCheck ? mkdtempSync(join(tmpdir(), "troupe-proto-")) : target;
if (!isCheck) rmSync(target, { recursive: true, force: true });

const files = readdirSync("proto/troupe/v1")
  .filter((f) => f.endsWith(".proto"))
  .map((f) => `troupe/v1/${f}`);
execFileSync(
  process.execPath,
  [
    "node_modules/@grpc/proto-loader/build/bin/proto-loader-gen-types.js",
    "--longs=Number",
    "--enums=String",
    "--defaults",
    "--oneofs",
    "--includeComments",
    "--grpcLib=@grpc/grpc-js",
    "--targetFileExtension=.ts",
    "--importFileExtension=.js",
    "-I",
    "proto",
    "-O",
    outDir,
    ...files,
  ],
  { stdio: ["ignore", "ignore", "inherit"] },
);

const list = (dir) =>
  readdirSync(dir, { withFileTypes: true, recursive: true })
    .filter((e) => e.isFile())
    .map((e) => relative(dir, join(e.parentPath, e.name)))
    .sort();
if (isCheck) {
  const fresh = list(outDir);
  const committed = existsSync(target) ? list(target) : [];
  const stale =
    fresh.length !== committed.length ||
    fresh.some(
      (f) =>
        !committed.includes(f) ||
        readFileSync(join(outDir, f), "utf8") !== readFileSync(join(target, f), "utf8"),
    );
  rmSync(outDir, { recursive: true, force: true });
  if (stale) {
    console.error("src/rpc/generated does not match proto/: run `npm run gen:proto`");
    process.exit(1);
  }
}
