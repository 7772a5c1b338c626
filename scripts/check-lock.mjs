// A lockfile that `npm i` writes can still fail `npm ci` on another machine. This runs `npm ci` from the committed lock in
// an empty folder and checks the two properties a reader relies on: exact pins, and no
// download addresses recorded.
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const manifest = JSON.parse(readFileSync("package.json", "utf8"));
const loose = Object.entries({ ...manifest.dependencies, ...manifest.devDependencies }).filter(
  ([, version]) => !/^\d+\.\d+\.\d+$/.test(version),
);
if (loose.length > 0) {
  console.error(
    `package.json: expected exact versions, got ${loose.map(([n, v]) => `${n}@${v}`).join(", ")}`,
  );
  process.exit(1);
}
if (readFileSync("package-lock.json", "utf8").includes('"resolved": "http')) {
  console.error(
    "package-lock.json records download addresses: regenerate it with omit-lockfile-registry-resolved=true",
  );
  process.exit(1);
}
const folder = mkdtempSync(join(tmpdir(), "troupe-lock-"));
try {
  for (const file of ["package.json", "package-lock.json", ".npmrc"]) copyFileSync(file, join(folder, file));
  execFileSync("npm", ["ci", "--no-audit", "--no-fund"], { cwd: folder, stdio: "inherit" });
  console.log("package-lock.json: npm ci passes from an empty folder");
} finally {
  rmSync(folder, { recursive: true, force: true });
}
