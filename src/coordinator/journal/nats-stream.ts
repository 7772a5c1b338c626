/**
 * One JetStream stream as a file that only grows at its end: values larger than a message are cut into parts, and every
 * value is either there completely or not there for a reader.
 */
import {
  jetstream,
  JetStreamApiError,
  jetstreamManager,
  RetentionPolicy,
  StorageType,
  type JetStreamClient,
  type JetStreamManager,
  type NextMsgRequest,
  type SeqMsgRequest,
  type StoredMsg,
} from "@nats-io/jetstream";
import { headers, type NatsConnection } from "@nats-io/transport-node";
import { randomUUID } from "node:crypto";
import { storageError, TroupeError } from "../../shared/errors.js";
import {
  isOvertaken,
  natsError,
  patiently,
  streamName,
  subjectOf,
  type NatsOptions,
} from "./nats-connection.js";
import { matchReplicas } from "./nats-replicas.js";

const PART_HEADER = "Troupe-Part";
const PUBLISH_TIMEOUT_MS = 2_000;
/** Room for subject and headers within the server's limit on a message. */
const HEADER_ROOM_BYTES = 1_024;
/** Messages asked for at once, which wait in memory. */
const READ_AHEAD = 32;
const READ_TIMEOUT_MS = 2_000;
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
  /** How long anything is tried again before it counts as failed. */
  readonly patienceMs?: number;
}

export class NatsStream {
  readonly name: string;
  private readonly subject: string;
  private readonly writer = randomUUID();
  private readonly patienceMs: number | undefined;
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
    this.patienceMs = options.patienceMs;
  }

  /** Opens the stream, or creates it. @throws {TroupeError} STORAGE */
  static async open(connection: NatsConnection, options: NatsStreamOptions): Promise<NatsStream> {
    try {
      // Checking the account needs the servers' meta leader, which a cluster that lost a server may lack for a while.
      const manager = await jetstreamManager(connection, { timeout: READ_TIMEOUT_MS, checkAPI: false });
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
      return (await this.asking(() => this.manager.streams.info(this.name))).state.last_seq;
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
      const parts = await Promise.all(sequences.map((seq) => this.find({ seq })));
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
      const { state } = await this.asking(() =>
        this.manager.streams.info(this.name, { subjects_filter: ">" }),
      );
      return Object.keys(state.subjects ?? {}).map((subject) => subject.slice(this.subject.length + 1));
    } catch (error) {
      throw natsError(`NATS stream ${this.name} cannot be read`, error);
    }
  }

  /** The messages of a key, as they lie; fewer when the rest is gone. */
  async *partsOf(key: string, count: number): AsyncGenerator<{ part: string; data: Uint8Array }> {
    const next_by_subj = `${this.subject}.${key}`;
    let after = 0;
    try {
      for (let left = count; left > 0; left--) {
        const found = await this.message({ seq: after + 1, next_by_subj });
        after = found.seq;
        yield partOf(found);
      }
    } catch (error) {
      if (error instanceof MissingMessage) return;
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
    const publish = async (): Promise<number> => {
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
        if (!isOvertaken(error)) throw error;
        throw new TroupeError(
          "FENCED",
          `another coordinator has written to ${this.name} since message ${expected}: this one was replaced`,
          { cause: error },
        );
      }
    };
    try {
      return await this.asking(publish, PUBLISH_TIMEOUT_MS);
    } catch (error) {
      throw natsError(`NATS stream ${this.name} cannot be written`, error);
    }
  }

  /** Asks the servers until they answer, or patience runs out. */
  private asking<T>(attempt: () => Promise<T>, attemptMs = READ_TIMEOUT_MS): Promise<T> {
    return patiently(attempt, {
      patienceMs: this.patienceMs,
      attemptMs,
      isGivenUp: () => this.isClosed,
    });
  }

  /** @returns null when there is none, as the server that leads has it at this moment */
  private find(query: SeqMsgRequest & Partial<NextMsgRequest>): Promise<StoredMsg | null> {
    return this.asking(() => this.manager.streams.getMessage(this.name, query));
  }

  /** @throws {MissingMessage} when there is none for long */
  private message(query: SeqMsgRequest & Partial<NextMsgRequest>): Promise<StoredMsg> {
    return this.asking(async () => {
      const found = await this.find(query);
      if (found === null) throw new MissingMessage(`message ${query.seq} is gone`);
      return found;
    });
  }

  /**
   * Asks the server that leads, message by message, many at once: it has all that it acknowledged, and a consumer could
   * be placed on a server that was just lost.
   */
  private async *messages(
    upTo: number,
  ): AsyncGenerator<{ sequence: number; data: Uint8Array; part: string }> {
    if (upTo === 0) return;
    const { streams } = this.manager;
    try {
      const { state } = await this.asking(() => streams.info(this.name));
      for (let next = state.first_seq; next <= upTo;) {
        const first = next;
        const wanted = Array.from({ length: Math.min(READ_AHEAD, upTo - first + 1) }, (_, i) => first + i);
        const found = await this.asking(async () => {
          const some = await Promise.all(wanted.map((seq) => this.find({ seq })));
          if (some.every((one) => one === null))
            throw new MissingMessage(`it gives no message from ${first} on, expected up to ${upTo}`);
          return some;
        });
        for (const message of found) {
          if (message === null) continue;
          next = message.seq + 1;
          yield { sequence: message.seq, ...partOf(message) };
        }
      }
    } catch (error) {
      throw natsError(`NATS stream ${this.name} cannot be read`, error);
    }
  }

  private async create({ replicas, isKeyed = false }: NatsStreamOptions): Promise<void> {
    const { streams } = this.manager;
    const known = await this.asking(() => streams.info(this.name).catch(whenMissing));
    if (known !== undefined) return matchReplicas(this.manager, known, replicas);
    await this.asking(() =>
      streams.add({
        name: this.name,
        subjects: [isKeyed ? `${this.subject}.*` : this.subject],
        storage: StorageType.File,
        retention: RetentionPolicy.Limits,
        num_replicas: replicas,
        duplicate_window: DUPLICATE_WINDOW_NS,
        allow_direct: false,
      }),
    );
  }
}

/** What was acknowledged is not there. A leader that was just elected may not have caught up with itself. */
class MissingMessage extends Error {}

const partOf = ({ header, data }: StoredMsg): { part: string; data: Uint8Array } => ({
  part: header.get(PART_HEADER) || "1/1",
  data,
});

function whenMissing(error: unknown): undefined {
  if (error instanceof JetStreamApiError && error.status === 404) return undefined;
  throw error;
}
