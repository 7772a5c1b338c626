import type { ChannelOptions } from "@grpc/grpc-js";

/** Chunks on the wire: large enough that framing costs little, small enough to interleave with heartbeats. */
export const CHUNK_BYTES = 1 << 20;

/** Experience and shard messages are bounded well below this; anything larger is a mistake or an attack. */
export const MAX_MESSAGE_BYTES = 64 << 20;

const shared: ChannelOptions = {
  "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
  "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
  // A peer whose host vanished never sends FIN; only keepalive notices. Above any stall of an event loop here.
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 20_000,
  "grpc.keepalive_permit_without_calls": 1,
};

export const clientChannelOptions: ChannelOptions = {
  ...shared,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1_000,
  // The default 64 KiB HTTP/2 window costs a wake-up per 64 KiB: 4.5 times slower for 1 MiB messages.
  "grpc-node.flow_control_window": CHUNK_BYTES,
  // Bulk messages are never retried by the channel; every stream has its own resume rule.
  "grpc.enable_retries": 0,
};

export const serverChannelOptions: ChannelOptions = shared;
