import { expect, it, vi } from "vitest";
import { HeartbeatProbe } from "../../../src/load/heartbeat-probe.js";
import { sleep } from "../../../src/shared/abort.js";

type Answer = (error: Error | null, reply?: object) => void;

/** Lets the probe in, gives it up, is too busy to let it in again, then does. */
const told: string[] = [];
vi.mock("../../../src/worker/coordinator-link.js", () => ({
  openClients: () => ({
    membership: {
      register: (_request: object, _options: object, answer: Answer) => {
        const count = told.filter((what) => what === "register").length;
        told.push("register");
        if (count === 1) answer(new Error("deadline exceeded"));
        else answer(null, { sender: { incarnation: count + 1 } });
      },
      heartbeat: ({ sender }: { sender: { incarnation: number } }, _options: object, answer: Answer) => {
        told.push(`heartbeat of ${sender.incarnation}`);
        answer(null, { directive: sender.incarnation === 1 ? "REGISTER_AGAIN" : "CONTINUE" });
      },
      close: () => undefined,
    },
  }),
}));

it("a probe that was given up and is not let in at once tries again", async () => {
  const probe = await HeartbeatProbe.start("127.0.0.1:1", "token");
  while (!told.includes("heartbeat of 3")) await sleep(10);
  await probe.stop();
  expect(told.slice(0, 6)).toEqual([
    ...["register", "heartbeat of 1", "register", "heartbeat of 1", "register", "heartbeat of 3"],
  ]);
});
