import { existsSync } from "node:fs";
import { expect, test } from "vitest";
import { pathOf, read } from "./repository.js";

const dockerfile = read("deploy/Dockerfile").replaceAll("\\\n", " ");
const ignore = read(".dockerignore");
const stages = dockerfile.split(/^FROM /m).slice(1);

test("everything the image copies from the checkout exists and is let through by .dockerignore", () => {
  const copies = [...dockerfile.matchAll(/^COPY (?!--from)(.*)$/gm)].map((match) =>
    match[1].trim().split(/\s+/),
  );
  const sources = copies.flatMap((words) => words.slice(0, -1));
  expect(sources.length).toBeGreaterThan(6);
  for (const source of sources) {
    const name = source.replace(/^\.\//, "");
    expect([name, existsSync(pathOf(name))]).toEqual([name, true]);
    expect(ignore.split("\n")).toContain(`!${name}`);
  }
  expect(ignore.split("\n")).toContain("*");
});

test("the final stage has everything the program reads at run time", () => {
  const final = stages.at(-1) ?? "";
  const needed = [
    "package.json",
    "node_modules",
    "bin",
    "proto",
    "dist",
    "data",
    "src/observability/dashboard",
  ];
  for (const path of needed) expect(final).toContain(`COPY --from=build /app/${path} ./`);
  expect(final).toContain("TROUPE_SKIP_BUILD=1");
});

test("the image runs no install script, no root, and hands signals to the program", () => {
  expect(dockerfile).toMatch(/npm ci --omit=dev --ignore-scripts/);
  const final = stages.at(-1) ?? "";
  expect(final).toMatch(/^USER 1000:0$/m);
  expect(final).toMatch(/^ENTRYPOINT \["node", "\/app\/bin\/troupe\.mjs"\]$/m);
  expect(final).toMatch(/^HEALTHCHECK .*"node", "-e", "fetch\('http:\/\/127\.0\.0\.1:9464\/healthz'\)/m);
});

test("the sample data the image generates is what the sample run reads", () => {
  const config = read("deploy/config/run.yaml");
  const out = /--out (\S+)/.exec(dockerfile)?.[1];
  const tokenizer = /--tokenizer (\S+)/.exec(dockerfile)?.[1];
  expect(config).toContain(`path: /app/${out}\n`);
  expect(config).toContain(`path: /app/${tokenizer} }`);
});
