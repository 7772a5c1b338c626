import { expect, it } from "vitest";
import { smallestOf } from "../../../src/shared/device-memory.js";

it("takes the smallest GPU of what nvidia-smi lists, and nothing for what it does not tell", () => {
  expect(smallestOf("81559\n40960\n")).toBe(40960 * 2 ** 20);
  expect(smallestOf("")).toBeNull();
  expect(smallestOf("[N/A]\n")).toBeNull();
});
