/**
 * One JetStream stream as a file that only grows at its end: values larger than a message are cut into parts, and every
 * value is either there completely or not there for a reader.
 */
import {
  DeliverPolicy,
  jetstream,
  jetstreamManager,
  RetentionPolicy,
  StorageType,
  type JetStreamClient,
  type JetStreamManager,
} from "@nats-io/jetstream";
import { headers, type NatsConnection } from "@nats-io/transport-node";
import { randomUUID } from "node:crypto";
import { sleep } from "../../shared/abort.js";
import { storageError, TroupeError } from "../../shared/errors.js";
import {
  isOvertaken,
  isPassing,
  natsError,
  streamName,
  subjectOf,
  type NatsOptions,
} from "./nats-connection.js";

const PART_HEADER = "Troupe-Part";
const PUBLISH_TIMEOUT_MS = 2_000;
/** Longer than a cluster needs to elect a stream's new leader. */
const DEFAULT_PATIENCE_MS = 10_000;
/** Room for subject and headers within the server's limit on a message. */
const HEADER_ROOM_BYTES = 1_024;
const READ_AHEAD_MESSAGES = 500;
/** Parts of large values asked for at once: this many messages wait in memory at most. */
const READ_AHEAD_PARTS = 16;
const READ_TIMEOUT_MS = 5_000;
/** What is bounded here is the copies of one publisher's retries, which come within its patience. */
const DUPLICATE_WINDOW_NS = 120e9;

export interface StoredValue {
  /** Stream sequence of the value's last part. */
  readonly sequence: number;
  readonly value: Uint8Array;
}

export interface NatsStreamOptions extends Pick<NatsOptions, "run" | "replicas"> {
  readonly part: string;
  /** Values have keys, each a subject of its own below the stream's: see nats-blobs.ts. */
  readonly isKeyed?: boolean;
  /** How long a publish is tried again before it counts as failed. */
  readonly patienceMs?: number;
}

export class NatsStream {
  readonly name: string;
  private readonly subject: string;
  private readonly writer = randomUUID();
  private readonly patienceMs: number;
  private published = 0;
  private isClosed = false;

  private constructor(
    private readonly connection: NatsConnection,
    private readonly client: JetStreamClient,
    private readonly manager: JetStreamManager,
    options: NatsStreamOptions,
  ) {
    this.name = streamName(options.run, options.part);
    this.subject = subjectOf(options.run, options.part);
    this.patienceMs = options.patienceMs ?? DEFAULT_PATIENCE_MS;
  }

  /** Opens the stream, or creates it. @throws {TroupeError} STORAGE */
  static async open(connection: NatsConnection, options: NatsStreamOptions): Promise<NatsStream> {
    try {
      const manager = await jetstreamManager(connection, { timeout: READ_TIMEOUT_MS });
      const stream = new NatsStream(connection, jetstream(connection), manager, options);
      await stream.create(options);
      return stream;
    } catch (error) {
      throw natsError(
        `NATS stream ${streamName(options.run, options.part)} with ${options.replicas} replicas cannot be opened`,
        error,
      );
    }
  }

  /** Sequence of the newest message; 0 in an empty stream. */
  async lastSequence(): Promise<number> {
    try {
      return (await this.manager.streams.info(this.name)).state.last_seq;
    } catch (error) {
      throw natsError(`NATS stream ${this.name} cannot be read`, error);
    }
  }

  /**
   * Adds a value and resolves with the sequences of its parts once the servers hold them. An unanswered publish is
   * repeated; the servers drop the copy by its id.
   * @param expectedLast the sequence the stream must end with: fails when anybody else has added to it
   * @throws {TroupeError} FENCED when the stream ends otherwise; STORAGE
   */
  async publish(value: Uint8Array, expectedLast?: number): Promise<number[]> {
    const { partBytes } = this;
    const count = Math.max(1, Math.ceil(value.length / partBytes));
    const sequences: number[] = [];
    for (let i = 0; i < count; i++) {
      const part = value.subarray(i * partBytes, (i + 1) * partBytes);
      const expected = i === 0 ? expectedLast : expectedLast === undefined ? undefined : sequences[i - 1];
      sequences.push(await this.publishPart(part, `${i + 1}/${count}`, expected));
    }
    return sequences;
  }

  /** The most bytes of a value that one message holds. */
  get partBytes(): number {
    return (this.connection.info?.max_payload ?? 1 << 20) - HEADER_ROOM_BYTES;
  }

  /** Every complete value up to the sequence, oldest first; what a lost publisher left half done is passed over. */
  async *read(upTo: number): AsyncGenerator<StoredValue> {
    let parts: Uint8Array[] = [];
    for await (const { sequence, data, part } of this.messages(upTo)) {
      const [index, count] = part.split("/").map(Number);
      if (index === 1) parts = [];
      if (index !== parts.length + 1)
        throw storageError(`NATS stream ${this.name} lacks the message before ${sequence}: it is damaged`);
      parts.push(data);
      if (index === count) {
        yield { sequence, value: count === 1 ? data : Buffer.concat(parts) };
        parts = [];
      }
    }
  }

  /** The value with these parts; undefined when it is gone. */
  async get(sequences: readonly number[]): Promise<Uint8Array | undefined> {
    try {
      const parts = await Promise.all(
        sequences.map((seq) => this.manager.streams.getMessage(this.name, { seq })),
      );
      return parts.some((part) => part === null) ? undefined : Buffer.concat(parts.map((part) => part!.data));
    } catch (error) {
      throw natsError(`NATS stream ${this.name}, messages ${sequences.join(", ")} cannot be read`, error);
    }
  }

  /** Drops every message before the sequence. */
  async purgeBefore(sequence: number): Promise<void> {
    await this.manager.streams.purge(this.name, { seq: sequence });
  }

  /** Drops every message of a key. */
  async purgeKey(key: string): Promise<void> {
    await this.manager.streams.purge(this.name, { filter: `${this.subject}.${key}` });
  }

  /** Of a keyed stream. */
  async keys(): Promise<string[]> {
    try {
      const { state } = await this.manager.streams.info(this.name, { subjects_filter: ">" });
      return Object.keys(state.subjects ?? {}).map((subject) => subject.slice(this.subject.length + 1));
    } catch (error) {
      throw natsError(`NATS stream ${this.name} cannot be read`, error);
    }
  }

  /** The messages of a key, as they lie. */
  async *partsOf(key: string, count: number): AsyncGenerator<{ part: string; data: Uint8Array }> {
    try {
      const consumer = await this.client.consumers.get(this.name, {
        filter_subjects: `${this.subject}.${key}`,
      });
      for (let left = count; left > 0;) {
        const asked = Math.min(left, READ_AHEAD_PARTS);
        const before = left;
        for await (const message of await consumer.fetch({ max_messages: asked, expires: READ_TIMEOUT_MS })) {
          left -= 1;
          yield { part: message.headers?.get(PART_HEADER) ?? "", data: message.data };
        }
        if (left === before) return; // the rest is gone
      }
    } catch (error) {
      throw natsError(`NATS stream ${this.name}, value ${key} cannot be read`, error);
    }
  }

  /** No publish is tried again from here on. */
  close(): void {
    this.isClosed = true;
  }

  /**
   * Adds one message, repeating it until it is acknowledged.
   * @param part "index/count", from 1
   * @param key of a keyed stream's value
   */
  async publishPart(
    data: Uint8Array,
    part: string,
    expected: number | undefined,
    key?: string,
  ): Promise<number> {
    const subject = key === undefined ? this.subject : `${this.subject}.${key}`;
    const msgID = `${this.writer}-${++this.published}`;
    let waitedMs = 0;
    for (;;) {
      const startedMs = performance.now();
      const header = headers();
      header.set(PART_HEADER, part);
      try {
        const ack = await this.client.publish(subject, data, {
          msgID,
          headers: header,
          timeout: PUBLISH_TIMEOUT_MS,
          expect: {
            streamName: this.name,
            ...(expected === undefined ? {} : { lastSequence: expected }),
          },
        });
        return ack.seq;
      } catch (error) {
        if (isOvertaken(error)) {
          throw new TroupeError(
            "FENCED",
            `another coordinator has written to ${this.name} since message ${expected}: this one was replaced`,
            { cause: error },
          );
        }
        // A process that was stopped for a minute has not waited a minute: only the time an attempt may take counts,
        // so that it asks once more and hears whether it was replaced meanwhile.
        waitedMs += Math.min(performance.now() - startedMs, PUBLISH_TIMEOUT_MS);
        if (!isPassing(error) || this.isClosed || waitedMs > this.patienceMs)
          throw natsError(`NATS stream ${this.name} cannot be written`, error);
        await sleep(100);
      }
    }
  }

  private async *messages(
    upTo: number,
  ): AsyncGenerator<{ sequence: number; data: Uint8Array; part: string }> {
    for (let next = 1; next <= upTo;) {
      const started = next;
      try {
        const consumer = await this.client.consumers.get(this.name, {
          deliver_policy: DeliverPolicy.StartSequence,
          opt_start_seq: next,
        });
        const batch = await consumer.fetch({ max_messages: READ_AHEAD_MESSAGES, expires: READ_TIMEOUT_MS });
        for await (const message of batch) {
          if (message.seq > upTo) break;
          next = message.seq + 1;
          yield {
            sequence: message.seq,
            data: message.data,
            part: message.headers?.get(PART_HEADER) || "1/1",
          };
          if (message.seq === upTo || message.info.pending === 0) break;
        }
      } catch (error) {
        throw natsError(`NATS stream ${this.name} cannot be read`, error);
      }
      if (next === started)
        throw storageError(
          `NATS stream ${this.name} gives no message from ${next} on, expected up to ${upTo}`,
        );
    }
  }

  private async create({ replicas, isKeyed = false }: NatsStreamOptions): Promise<void> {
    const known = await this.manager.streams.info(this.name).catch(() => undefined);
    if (known !== undefined) return;
    await this.manager.streams.add({
      name: this.name,
      subjects: [isKeyed ? `${this.subject}.*` : this.subject],
      storage: StorageType.File,
      retention: RetentionPolicy.Limits,
      num_replicas: replicas,
      duplicate_window: DUPLICATE_WINDOW_NS,
      allow_direct: false,
    });
  }
}
