import { readdirSync } from "node:fs";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readJsonLines, type JsonLine } from "../../../src/data/jsonl.js";
import { tempFolder, writeTemp } from "./temp-folder.js";

const folder = tempFolder();

async function read(content: string | Uint8Array, maxLineBytes?: number): Promise<JsonLine[]> {
  const lines: JsonLine[] = [];
  for await (const line of readJsonLines(writeTemp(folder, content), { maxLineBytes })) lines.push(line);
  return lines;
}

const value = (line: number, parsed: unknown): JsonLine => ({ line, kind: "value", value: parsed });

describe("readJsonLines", () => {
  it("reads lines with LF, CRLF and no newline at the end", async () => {
    expect(await read('{"a":1}\n{"a":2}\r\n{"a":3}')).toEqual([
      value(1, { a: 1 }),
      value(2, { a: 2 }),
      value(3, { a: 3 }),
    ]);
  });

  it("passes over blank lines but counts them in line numbers", async () => {
    expect(await read('\n{"a":1}\n  \r\n\n{"a":2}\n\n')).toEqual([value(2, { a: 1 }), value(5, { a: 2 })]);
  });

  it("drops a byte order mark at the start of the file only", async () => {
    expect(await read('\uFEFF{"a":"\uFEFFb"}\n')).toEqual([value(1, { a: "\uFEFFb" })]);
    expect(await read('{"a":1}\n\uFEFF{"a":2}\n')).toMatchObject([
      { kind: "value" },
      { line: 2, kind: "bad", reason: "invalid-json" },
    ]);
  });

  it("tells gzip by its magic bytes, whatever the file is called", async () => {
    expect(await read(gzipSync('{"a":1}\n{"a":2}\n'))).toEqual([value(1, { a: 1 }), value(2, { a: 2 })]);
  });

  it("reads a gzip file of several members, as concatenation makes them", async () => {
    expect(await read(Buffer.concat([gzipSync('{"a":1}\n'), gzipSync('{"a":2}\n')]))).toHaveLength(2);
  });

  it("keeps rows whole across chunk borders, multi-byte characters included", async () => {
    const rows = Array.from({ length: 40 }, (_, i) => ({ i, text: "é🙂".repeat(3000 + i) }));
    const parsed = await read(rows.map((row) => JSON.stringify(row)).join("\n"));
    expect(parsed).toEqual(rows.map((row, i) => value(i + 1, row)));
  });

  it("reads back any rows, plain and gzipped", async () => {
    const rows = fc.array(fc.dictionary(fc.string(), fc.jsonValue()), { minLength: 1, maxLength: 20 });
    await fc.assert(
      fc.asyncProperty(rows, fc.boolean(), async (items, isGzip) => {
        const texts = items.map((item) => JSON.stringify(item));
        const text = texts.join("\n");
        const expected = texts.map((line, i) => value(i + 1, JSON.parse(line)));
        expect(await read(isGzip ? gzipSync(text) : text)).toEqual(expected);
      }),
      { numRuns: 60 },
    );
  });

  it("reports bad lines with their number and reads on", async () => {
    const invalidUtf8 = Buffer.concat([
      Buffer.from('{"a":"'),
      Buffer.from([0xc3, 0x28]),
      Buffer.from('"}\n'),
    ]);
    const lines = await read(
      Buffer.concat([Buffer.from('{"a":1}\n{oops}\n'), invalidUtf8, Buffer.from('{"a":4}\n')]),
    );
    expect(lines).toMatchObject([
      { line: 1, kind: "value" },
      { line: 2, kind: "bad", reason: "invalid-json" },
      { line: 3, kind: "bad", reason: "invalid-utf8", message: "not valid UTF-8" },
      { line: 4, kind: "value", value: { a: 4 } },
    ]);
  });

  it("refuses a line over the cap without holding it, at exactly the cap", async () => {
    const fits = JSON.stringify("x".repeat(998)); // 1000 bytes with its quotes
    const lines = await read(
      `${fits}\n${JSON.stringify("x".repeat(999))}\n${"y".repeat(700_000)}\n1\n`,
      1000,
    );
    expect(lines).toMatchObject([
      { line: 1, kind: "value" },
      { line: 2, kind: "bad", reason: "line-too-long", message: "longer than 1000 bytes" },
      { line: 3, kind: "bad", reason: "line-too-long" },
      { line: 4, kind: "value", value: 1 },
    ]);
  });

  it("holds little memory for one endless gzipped line", async () => {
    const bomb = gzipSync(Buffer.alloc(200 * 1024 * 1024, "z"));
    const before = process.memoryUsage().rss;
    expect(await read(bomb, 1024 * 1024)).toMatchObject([{ line: 1, kind: "bad", reason: "line-too-long" }]);
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * 1024 * 1024);
  });

  it.runIf(process.platform === "linux")("closes the file when the reader stops early", async () => {
    const path = writeTemp(folder, '{"a":1}\n'.repeat(200_000));
    const open = (): number => readdirSync("/proc/self/fd").length;
    const before = open();
    for (let i = 0; i < 20; i++) {
      for await (const _ of readJsonLines(path)) break;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(open()).toBeLessThan(before + 5);
  });

  it("stops when its signal is aborted", async () => {
    const path = writeTemp(folder, '{"a":1}\n'.repeat(1000));
    const stop = new AbortController();
    const take = async (): Promise<void> => {
      for await (const { line } of readJsonLines(path, { signal: stop.signal })) if (line === 3) stop.abort();
    };
    await expect(take()).rejects.toThrow(/abort/i);
  });
});

describe("files that cannot be read at all", () => {
  const full = gzipSync(Array.from({ length: 5000 }, (_, i) => `{"i":${i},"t":"${Math.sin(i)}"}\n`).join(""));
  const flipped = Buffer.from(full);
  flipped.fill(0xff, 4000, 4400);

  it.each([
    [
      "a truncated gzip",
      full.subarray(0, full.length / 2),
      /ends too early \(truncated\) after line \d+; fetch the file again/,
    ],
    ["a damaged gzip", flipped, /the gzip stream is damaged after line \d+/],
    ["an empty file", "", /is empty; expected one JSON object per line/],
    ["a Parquet file", "PAR1....", /is a Parquet file; write it out as JSONL first/],
    ["a zip archive", Buffer.from([0x50, 0x4b, 3, 4, 0, 0]), /is a zip archive/],
    ["a zstd file", Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0]), /is zstd-compressed/],
    ["UTF-16", Buffer.from('\uFEFF{"a":1}', "utf16le"), /is UTF-16; convert it to UTF-8/],
  ])("%s is a DATA error that names the file", async (_, content, message) => {
    const error = (await read(content).catch((thrown: unknown) => thrown)) as Error;
    expect(error).toMatchObject({ code: "DATA" });
    expect(error.message).toMatch(message);
    expect(error.message).toContain(folder);
  });

  it("a missing file and a directory say so", async () => {
    const read1 = async (path: string): Promise<void> => {
      for await (const _ of readJsonLines(path));
    };
    await expect(read1(`${folder}/nothing.jsonl`)).rejects.toThrow(
      `data.path ${folder}/nothing.jsonl does not exist`,
    );
    await expect(read1(folder)).rejects.toThrow(`data.path ${folder} is a directory; expected a JSONL file`);
  });
});
