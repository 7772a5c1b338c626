import { describe, expect, it } from "vitest";
import { RunEnd } from "../../../src/coordinator/run-end.js";
import type { Leadership } from "../../../src/coordinator/standby.js";
import { TroupeError, dataError } from "../../../src/shared/errors.js";

const leads = {} as Leadership;
const newEnd = (told = new AbortController()) => new RunEnd(told.signal, leads);

describe("what those who stand by hear of a run's end", () => {
  it("is nothing when a machine lacks what another may have", () => {
    expect(newEnd().outcome(dataError("data.path x does not exist"))).toBeUndefined();
  });

  it("is the failure when the run had begun and would fail again", () => {
    const end = newEnd();
    end.begin();
    expect(end.outcome(dataError("row 3 is damaged"))).toEqual({ code: "DATA", message: "row 3 is damaged" });
    expect(end.outcome(new TroupeError("STORAGE", "disk full"))).toBeUndefined();
    expect(end.outcome(undefined)).toEqual({ code: null, message: "done" });
  });

  it("is that it was stopped for all, and the workers are sent away, even when a signal follows", () => {
    const told = new AbortController();
    const end = newEnd(told);
    end.stopForAll("enough");
    told.abort();
    end.close();
    expect(end.isOver).toBe(true);
    expect(end.outcome(end.signal.reason)).toEqual({ code: "CANCELLED", message: "enough" });
  });

  it("is nothing when this process alone was told to end, and the workers stay", () => {
    const told = new AbortController();
    const end = newEnd(told);
    end.begin();
    told.abort();
    end.stopForAll("too late");
    end.close();
    expect(end.isOver).toBe(false);
    expect(end.outcome(end.signal.reason)).toBeUndefined();
  });
});
