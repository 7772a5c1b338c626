export type { CompactionOptions, DurableLog, LogEntry } from "./durable-log.js";
export { openLevelLog } from "./level-log.js";
export { MemoryLog } from "./memory-log.js";
