/** What a benchmark reports. */
export interface BenchRow {
  readonly name: string;
  /** Model, batch and threads, in words. */
  readonly config: string;
  /** Of `ours` and `peer`; says whether more or less is better. */
  readonly unit: string;
  readonly ours: number;
  /** null when there was no peer to run. */
  readonly peer: number | null;
  /** Library and version, or why there is no number. */
  readonly peerName: string;
  /** ours / peer; null without a peer. */
  readonly ratio: number | null;
  /** The same ratio of CPU time, which other programs on the machine disturb less. */
  readonly cpuRatio?: number;
}

export const ratioOf = (ours: number, peer: number | null): number | null =>
  peer === null ? null : ours / peer;

/** One row as it is ready, before the widths of the others are known. */
export const lineOf = ({ name, config, unit, ours, peer, ratio, cpuRatio }: BenchRow): string =>
  [
    `${name}: ${config}: ${digits(ours)} ${unit}`,
    ...(peer === null ? [] : [`peer ${digits(peer)}`]),
    ...(ratio === null ? [] : [`ratio ${ratio.toFixed(3)}`]),
    ...(cpuRatio === undefined ? [] : [`cpu ratio ${cpuRatio.toFixed(3)}`]),
  ].join(", ");

/** Rows as an aligned table. */
export function tableOf(rows: readonly BenchRow[]): string {
  const cells = [
    ["bench", "config", "unit", "ours", "peer", "ratio", "cpu ratio", "peer is"],
    ...rows.map((row) => [
      row.name,
      row.config,
      row.unit,
      digits(row.ours),
      row.peer === null ? "-" : digits(row.peer),
      row.ratio === null ? "-" : row.ratio.toFixed(3),
      row.cpuRatio === undefined ? "-" : row.cpuRatio.toFixed(3),
      row.peerName,
    ]),
  ];
  const widths = cells[0].map((_, column) => Math.max(...cells.map((row) => row[column].length)));
  return cells
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

const digits = (value: number): string =>
  value >= 1000 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toPrecision(3);
