import { readFileSync } from "node:fs";
import { join } from "node:path";
import { format } from "prettier";
import { describe, expect, it } from "vitest";
import { renderConfigDocs } from "../../../src/config/docs.js";
import {
  branchesOf,
  configJsonSchema,
  describeExpected,
  describeGot,
  fieldPaths,
  nodeAt,
} from "../../../src/config/schema-node.js";
import { closest, editDistance } from "../../../src/config/suggestion.js";
import { packageRoot } from "../../../src/shared/paths.js";

describe("docs/configuration.md", () => {
  const page = renderConfigDocs();

  it("is what `troupe config docs` prints", () => {
    expect(readFileSync(join(packageRoot, "docs", "configuration.md"), "utf8")).toBe(page);
  });

  it("needs no formatting", async () => {
    expect(await format(page, { parser: "markdown", printWidth: 110 })).toBe(page);
  });

  it("names every field, and every field says what it does", () => {
    for (const path of fieldPaths()) {
      const node = nodeAt(configJsonSchema(), path.split("."), undefined);
      const isGroup = node === undefined || branchesOf(node)[0].properties !== undefined;
      if (!isGroup) expect(page).toContain(`\`${path}\``);
      if (node !== undefined && node.enum === undefined) expect(node.description, path).toBeTruthy();
    }
  });
});

describe("the JSON schema", () => {
  it("refuses unknown keys and asks only for data.path", () => {
    const schema = configJsonSchema() as { additionalProperties?: boolean; required?: string[] };
    expect(schema.additionalProperties).toBe(false);
    expect(schema.required).toEqual(["data"]);
    expect(configJsonSchema().properties?.data.required).toEqual(["path"]);
  });

  it("describes ranges in words", () => {
    const expected = (path: string) =>
      describeExpected(nodeAt(configJsonSchema(), path.split("."), undefined) ?? {});
    expect(expected("cluster.port")).toBe("a whole number from 0 to 65535");
    expect(expected("ppo.iterations")).toBe("a whole number of at least 1");
    expect(expected("ppo.cliprange")).toBe("a number above 0");
    expect(expected("generation.topP")).toBe("a number above 0 and at most 1");
    expect(expected("ppo.klBudget")).toBe("a number above 0 or null");
    expect(expected("ppo.klController")).toBe("a mapping whose type is one of fixed, adaptive");
  });

  it("quotes what was given, briefly", () => {
    expect(describeGot("x".repeat(200))).toHaveLength('the text ""'.length + 60);
    expect(describeGot({})).toBe("an empty mapping");
    expect(describeGot([1, 2])).toBe("a list of 2");
  });
});

describe("did you mean", () => {
  it("counts a swap of neighbours as one edit", () => {
    expect(editDistance("gamam", "gamma")).toBe(1);
    expect(editDistance("", "abc")).toBe(3);
    expect(editDistance("kitten", "sitting")).toBe(3);
  });

  it("is silent about words that are not close", () => {
    expect(closest("banana", ["gamma", "lam"])).toBeUndefined();
    expect(closest("lm", ["gamma", "lam"])).toBe("lam");
  });
});
