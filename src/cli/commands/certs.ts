/** `troupe certs init DIR`: an authority of your own, and what it signs for a coordinator and its workers. */
import type { Command } from "commander";
import { wholeNumber } from "../options.js";

interface CertsOptions {
  readonly host?: string[];
  readonly days: number;
  readonly peers?: boolean;
}

export function registerCerts(program: Command): void {
  const certs = program
    .command("certs")
    .description("make certificates for TLS between the processes of a run");
  certs
    .command("init")
    .description("write an authority and certificates for a coordinator and its workers")
    .argument("<dir>", "new folder, or one without certificates")
    .option("--host <name...>", "host names and IP addresses workers reach the coordinator by")
    .option("--days <n>", "how long they are valid", wholeNumber(1, 3650), 825)
    .option("--peers", "one certificate for servers that call each other, and none for clients: deploy/nats")
    .action(async (dir: string, options: CertsOptions) => {
      const { writeCertificates } = await import("../../rpc/certificate-files.js");
      const { names, until } = await writeCertificates(dir, {
        hosts: options.host ?? [],
        days: options.days,
        areForPeers: options.peers,
        now: new Date(),
      });
      const expiry = `valid until ${until.toISOString().slice(0, 10)}`;
      if (options.peers === true) {
        console.log(`wrote ca and server certificates to ${dir}, ${expiry}, for ${names.join(", ")}`);
        return;
      }
      console.log(
        [
          `wrote ca, server and client certificates to ${dir}, ${expiry}`,
          `the coordinator may be reached as ${names.join(", ")}`,
          "",
          `coordinator  --tls-cert ${dir}/server.crt --tls-key ${dir}/server.key`,
          `             and, to let in only holders of a certificate: --tls-client-ca ${dir}/ca.crt`,
          `workers      --tls-ca ca.crt, and for the latter --tls-cert client.crt --tls-key client.key`,
          "",
          "Whoever has ca.key can make certificates these processes trust: move it away from them, or delete it.",
        ].join("\n"),
      );
    });
}
