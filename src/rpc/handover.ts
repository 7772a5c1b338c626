/** Names of files in the coordinator's handover folder; what nobody took over is cleaned up like a broken upload. */
import { randomUUID } from "node:crypto";

export const handoverName = (): string => `file.safetensors.partial-${randomUUID()}`;

export const isHandoverName = (name: string): boolean =>
  /^file\.safetensors\.partial-[0-9a-f-]{36}$/.test(name);
