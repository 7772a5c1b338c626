import type { ChannelOptions } from "@grpc/grpc-js";
import { MAX_REQUEST_BYTES } from "./method-rules.js";

/** Chunks on the wire: large enough that framing costs little, small enough to interleave with heartbeats. */
export const CHUNK_BYTES = 1 << 20;

/** What the coordinator may send in one message: a row of training, or a few of an evaluation, however long. */
const MAX_REPLY_BYTES = 64 << 20;

const shared: ChannelOptions = {
  // A peer whose host vanished never sends FIN; only keepalive notices. Above any stall of an event loop here.
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 20_000,
  "grpc.keepalive_permit_without_calls": 1,
  // Books about every connection that nothing reads.
  "grpc.enable_channelz": 0,
};

export const clientChannelOptions: ChannelOptions = {
  ...shared,
  "grpc.max_receive_message_length": MAX_REPLY_BYTES,
  "grpc.max_send_message_length": MAX_REQUEST_BYTES,
  "grpc.initial_reconnect_backoff_ms": 100,
  // A coordinator is back within seconds; its workers should not sleep through it.
  "grpc.max_reconnect_backoff_ms": 500,
  // The default 64 KiB HTTP/2 window costs a wake-up per 64 KiB: 4.5 times slower for 1 MiB messages.
  "grpc-node.flow_control_window": CHUNK_BYTES,
  // Bulk messages are never retried by the channel; every stream has its own resume rule.
  "grpc.enable_retries": 0,
};

export const serverChannelOptions: ChannelOptions = {
  ...shared,
  // Refused while only the length was read; smaller limits of single methods follow before decoding.
  "grpc.max_receive_message_length": MAX_REQUEST_BYTES,
  "grpc.max_send_message_length": MAX_REPLY_BYTES,
  // Of one connection. A worker holds two long streams and a few transfers.
  "grpc.max_concurrent_streams": 128,
  // A connection without a call is of no use here; with keepalive's answer to silent ones, nobody can hoard them.
  "grpc.max_connection_idle_ms": 300_000,
};
