import { describe, expect, it } from "vitest";
import { numericError, TroupeError } from "../../../src/shared/errors.js";
import { fromThreadError, threadFunction, toThreadError } from "../../../src/worker/thread-error.js";

/** What a thread boundary leaves of a thrown value. */
const across = (error: unknown): unknown => fromThreadError(structuredClone(toThreadError(error)));

describe("an error that leaves a compute thread", () => {
  it("would lose its class and code to the structured clone alone", () => {
    const cloned = structuredClone(numericError("loss is NaN"));
    expect(cloned).not.toBeInstanceOf(TroupeError);
    expect(cloned).not.toHaveProperty("code");
  });

  it("keeps class, code, message and cause", () => {
    const error = across(numericError("loss is NaN", { cause: new RangeError("0 / 0") }));
    expect(error).toBeInstanceOf(TroupeError);
    expect(error).toMatchObject({ code: "NUMERIC", message: "loss is NaN", cause: { message: "0 / 0" } });
  });

  it("gets no cause it never had", () => {
    expect(across(numericError("loss is NaN"))).not.toHaveProperty("cause");
  });

  it.each([
    new TypeError("x is not a function"),
    "a string",
    undefined,
    new Error("with a cause", { cause: { reason: 1 } }),
  ])("stays what it is when it is not ours: %s", (thrown) => {
    expect(across(thrown)).toEqual(thrown);
    expect(across(thrown)).not.toBeInstanceOf(TroupeError);
  });

  it("is carried by every exported function of a thread module, asynchronous or not", async () => {
    const failing = threadFunction((text: string): Promise<never> => {
      throw numericError(text); // before the first await
    });
    const thrown: unknown = await failing("at once").catch((error: unknown) => error);
    expect(fromThreadError(structuredClone(thrown))).toMatchObject({ code: "NUMERIC", message: "at once" });
    expect(await threadFunction((n: number) => Promise.resolve(n + 1))(1)).toBe(2);
  });
});
