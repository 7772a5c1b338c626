/** What README and docs name is there: commands with their options, npm scripts, files of this repository. */
import { existsSync, readdirSync } from "node:fs";
import type { Command } from "commander";
import { expect, test } from "vitest";
import { buildProgram } from "../../../src/cli/program.js";
import { pathOf, read } from "./repository.js";

const documents = [
  ...["README.md", "examples/README.md", "deploy/README.md"],
  ...readdirSync(pathOf("docs")).map((name) => `docs/${name}`),
];
const program = buildProgram({ signal: new AbortController().signal, endedBy: undefined });
const scripts = (JSON.parse(read("package.json")) as { scripts: Record<string, string> }).scripts;

/** Commands as a shell would read them, without comments; those of code blocks and those in the middle of a sentence. */
function commandsOf(document: string): string[] {
  const text = read(document);
  const blocks = [...text.matchAll(/```(?:bash|sh)\n(.*?)```/gs)].map(([, block]) => block);
  const inline = [...text.replace(/```.*?```/gs, "").matchAll(/`([^`]+)`/g)].map(([, code]) => code);
  return [...blocks.join("\n").replaceAll("\\\n", " ").split("\n"), ...inline].map((line) =>
    line.replace(/\s+#.*$/s, "").trim(),
  );
}

/** The command that the words name, and the words after it. */
function find(words: readonly string[]): { command: Command; rest: readonly string[] } {
  let command = program;
  let rest = words;
  for (;;) {
    const next = command.commands.find((child) => child.name() === rest[0]);
    if (next === undefined) return { command, rest };
    [command, rest] = [next, rest.slice(1)];
  }
}

test.each(documents)("%s names commands and options that the program has", (document) => {
  for (const line of commandsOf(document)) {
    const [, words] = /^(?:[A-Z_]+=\S+ )*(?:npx troupe|node bin\/troupe\.mjs|troupe) (.+)$/s.exec(line) ?? [];
    if (words === undefined) continue;
    const { command, rest } = find(words.split(/\s+/));
    expect(command, line).not.toBe(program);
    for (const word of rest.filter((one) => one.startsWith("--")))
      expect(
        command.options.map(({ long }) => long),
        line,
      ).toContain(word.split("=")[0]);
  }
});

test.each(documents)("%s names npm scripts that there are", (document) => {
  for (const line of commandsOf(document)) {
    const [, name] = /^(?:[A-Z_]+=\S+ )*npm run ([\w:-]+)/.exec(line) ?? [];
    if (name !== undefined) expect(Object.keys(scripts), line).toContain(name);
  }
});

test.each(documents)("%s names files that there are", (document) => {
  const named = [
    ...read(document).matchAll(
      /\b(?:src|test|scripts|proto|examples)\/[\w./-]+\.(?:ts|mjs|json|yaml|proto)\b/g,
    ),
  ];
  expect(named.map(([path]) => path).filter((path) => !existsSync(pathOf(path)))).toEqual([]);
});
