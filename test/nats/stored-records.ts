/** What a run's journal holds, read beside the coordinators. */
import type { NatsConnection } from "@nats-io/transport-node";
import type { DurableRecord } from "../../src/coordinator/core/index.js";
import { unframe } from "../../src/coordinator/journal/encoding.js";
import { NatsStream } from "../../src/coordinator/journal/nats-stream.js";

/** The journal's records as they lie on the server, without opening (and so fencing) the log. */
export async function storedRecords(
  connection: NatsConnection,
  run: string,
  replicas = 1,
): Promise<DurableRecord[]> {
  const stream = await NatsStream.open(connection, { run, replicas, part: "LOG" });
  const records: DurableRecord[] = [];
  for await (const { sequence, value } of stream.read(await stream.lastSequence())) {
    const text = Buffer.from(unframe(String(sequence), value)).toString("utf8");
    records.push(...((JSON.parse(text) as { records?: DurableRecord[] }).records ?? []));
  }
  return records;
}

export const admissionsOf = (records: readonly DurableRecord[]): number =>
  records.reduce((sum, record) => sum + (record.type === "ExperiencesAdmitted" ? record.bytes.length : 0), 0);

export const countOf = (records: readonly DurableRecord[], type: DurableRecord["type"]): number =>
  records.filter((record) => record.type === type).length;
