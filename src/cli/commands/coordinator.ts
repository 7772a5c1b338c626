/** `troupe coordinator`: the process that directs a run. */
import type { Command } from "commander";
import { PARENT_PIPE_VARIABLE } from "../../launcher/child.js";
import { describeError, errorCodeOf } from "../../shared/errors.js";
import type { Lifetime } from "../lifetime.js";
import {
  addConfigOptions,
  allowDriftOption,
  loadForCommand,
  resumeOption,
  wholeNumber,
  type ConfigOptions,
} from "../options.js";

interface CoordinatorOptions extends ConfigOptions {
  readonly runDir: string;
  readonly host?: string;
  readonly port?: number;
  readonly httpHost?: string;
  readonly httpPort?: number;
  readonly tokenFile?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsClientCa?: string;
  readonly insecure?: boolean;
  readonly resume?: "auto";
  readonly allowDrift?: boolean;
  readonly standby?: boolean;
}

export function registerCoordinator(program: Command, lifetime: Lifetime): void {
  const command = program.command("coordinator").description("direct a run: workers connect to this process");
  addConfigOptions(command)
    .requiredOption("--run-dir <dir>", "folder for the journal, checkpoints and results")
    .option("--host <address>", "address to listen on (default: cluster.host)")
    .option("--port <n>", "gRPC port, 0 = a free one (default: cluster.port)", wholeNumber(0, 65_535))
    .option(
      "--http-host <address>",
      "address of dashboard and metrics, which have neither login nor TLS (default: 127.0.0.1)",
    )
    .option(
      "--http-port <n>",
      "port of dashboard and metrics (default: cluster.httpPort)",
      wholeNumber(0, 65_535),
    )
    .option(
      "--token-file <file>",
      "file with the join token, or a line `ROLE TOKEN` for each role (default: cluster.tokenFile)",
    )
    .option("--tls-cert <file>", "certificate: speak TLS only (default: cluster.tls.cert)")
    .option("--tls-key <file>", "its private key (default: cluster.tls.key)")
    .option("--tls-client-ca <file>", "also ask every caller for a certificate this authority signed")
    .option("--insecure", "listen beyond loopback, and reach NATS there, without TLS (cluster.insecure)")
    .addOption(resumeOption())
    .addOption(allowDriftOption())
    .option(
      "--standby",
      "wait for the coordinator that leads, and take over when it is gone (cluster.durable)",
    )
    .action(async (file: string, options: CoordinatorOptions) => {
      const { signal } = lifetime;
      const { config, warnings } = await loadForCommand(file, options, {
        "cluster.host": options.host,
        "cluster.port": options.port,
        "cluster.httpPort": options.httpPort,
        "cluster.tokenFile": options.tokenFile,
        "cluster.tls.cert": options.tlsCert,
        "cluster.tls.key": options.tlsKey,
        "cluster.tls.clientCa": options.tlsClientCa,
        "cluster.insecure": options.insecure,
      });
      for (const warning of warnings) console.error(`note: ${warning}`);
      const { checkMemoryFits, workerAdmission } = await import("../memory-check.js");
      const memoryNote = await checkMemoryFits(config, undefined, "coordinator");
      if (memoryNote !== null) console.error(`note: ${memoryNote}`);
      const { runCoordinator } = await import("../../coordinator/run-coordinator.js");
      await runCoordinator({
        config,
        runDir: options.runDir,
        httpHost: options.httpHost,
        resume: options.resume,
        allowDrift: options.allowDrift,
        standby: options.standby,
        admitWorker: await workerAdmission(config),
        signal,
      }).catch((error: unknown) => {
        // `troupe stop`: the run ended as it was asked to. The launcher starts again what ends with 0, so it hears 130.
        const isAsked = errorCodeOf(error) === "CANCELLED" && !signal.aborted;
        if (!isAsked || process.env[PARENT_PIPE_VARIABLE] === "1") throw error;
        console.error(`the run was stopped: ${describeError(error)}; --resume auto goes on with it`);
      });
    });
}
