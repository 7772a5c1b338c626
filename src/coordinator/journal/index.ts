export type { DurableLog, LogEntry } from "./durable-log.js";
export { openLevelLog, type LevelLogOptions } from "./level-log.js";
export { MemoryLog } from "./memory-log.js";
