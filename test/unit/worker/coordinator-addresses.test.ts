import { expect, test } from "vitest";
import { parseCoordinatorAddresses } from "../../../src/worker/coordinator-addresses.js";

const login = { TROUPE_NATS_TOKEN_FILE: "login" };
const authority = { TROUPE_NATS_CA_FILE: "ca.crt" };

test("NATS on another machine is asked with a login only, and with TLS unless --insecure says otherwise", () => {
  const address = "nats://127.0.0.1:4222,10.0.0.5:4222/my";
  expect(() => parseCoordinatorAddresses(address, { env: {}, insecure: true })).toThrow(
    /10\.0\.0\.5:4222.*TROUPE_NATS_TOKEN_FILE/,
  );
  expect(() => parseCoordinatorAddresses(address, { env: login })).toThrow(/TROUPE_NATS_CA_FILE.*--insecure/);
  for (const options of [{ env: login, insecure: true }, { env: { ...login, ...authority } }])
    expect(parseCoordinatorAddresses(address, options).hasOthers).toBe(true);
});

test("NATS on this machine is asked as it is", () => {
  expect(parseCoordinatorAddresses("nats://localhost:4222,[::1]:4222/my", { env: {} }).hasOthers).toBe(true);
});
