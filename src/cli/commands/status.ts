/** `troupe status`: where a run stands. */
import type { Command } from "commander";
import type { RunStatus } from "../../rpc/control-client.js";
import { askCoordinator } from "../connection.js";
import { addConnectionOptions, type ConnectionOptions } from "../options.js";

interface StatusOptions extends ConnectionOptions {
  readonly json?: boolean;
}

export function registerStatus(program: Command): void {
  const command = program.command("status").description("show where a run stands");
  addConnectionOptions(command)
    .option("--json", "machine-readable")
    .action(async (options: StatusOptions) => {
      const status = await askCoordinator(options, (control) => control.status());
      console.log(
        options.json === true ? JSON.stringify(status, null, 2) : (await renderStatus(status)).join("\n"),
      );
    });
}

async function renderStatus(status: RunStatus): Promise<string[]> {
  const [{ escapeControl }, { formatDuration }] = await Promise.all([
    import("../../observability/text.js"),
    import("../../launcher/progress-view.js"),
  ]);
  const { ledger } = status;
  const desired = Object.entries(status.desired).map(([role, count]) => `${role} ${count}`);
  const lines = [
    `run         ${escapeControl(status.runId)}${status.paused ? " (paused: too few learners)" : ""}`,
    `stage       ${escapeControl(status.stage)}, iteration ${status.iteration}, optimizer step ${status.optimizerStep}`,
    `policy      version ${status.policyVersion}`,
    `running     ${formatDuration(status.seconds * 1000)}, coordinator start ${status.epoch}`,
    `wanted      ${desired.join(", ") || "not set"}`,
  ];
  if (ledger !== null) {
    lines.push(
      `experience  ${ledger.admitted} admitted = ${ledger.trained} trained + ${ledger.dropped} dropped + ${ledger.buffered} buffered`,
    );
    if (status.stalenessLimit > 0) lines.push(...asynchronousLines(status, ledger));
  }
  const rows = status.workers.map((worker) => [
    worker.workerId,
    worker.role,
    worker.state,
    `${worker.host} pid ${worker.pid}`,
    worker.metricsAddress,
  ]);
  const table = [["worker", "role", "state", "process", "metrics"], ...rows].map((row) =>
    row.map(escapeControl),
  );
  const widths = table[0].map((_, i) => Math.max(...table.map((row) => row[i].length)));
  return [
    ...lines,
    "",
    ...table.map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]))
        .join("  ")
        .trimEnd(),
    ),
  ];
}

/** What is collected ahead, and how old the trained experience was. */
function asynchronousLines(
  { iteration, collectingIteration, stalenessLimit }: RunStatus,
  { inFlight, trainedByStaleness }: NonNullable<RunStatus["ledger"]>,
): string[] {
  const counts = Object.entries(trainedByStaleness).sort(([a], [b]) => Number(a) - Number(b));
  const histogram = counts.map(([versions, count]) => `${count} at ${versions}`).join(", ") || "none yet";
  return [
    `ahead       ${inFlight} in flight, collecting for iterations up to ${Math.max(iteration, collectingIteration)}`,
    `staleness   at most ${stalenessLimit} versions; trained: ${histogram}`,
  ];
}
