import koffi from "koffi";
import { isMainThread } from "node:worker_threads";

/**
 * Sets environment variables that are unset, where native libraries of this process see them.
 *
 * A worker thread's `process.env` is a copy that C's `getenv` never reads, so there C's own `setenv` is called too.
 * Call it before the library that reads them is loaded.
 */
export function setNativeDefaults(defaults: Readonly<Record<string, string>>): void {
  const unset = Object.entries(defaults).filter(([name]) => process.env[name] === undefined);
  for (const [name, value] of unset) process.env[name] = value;
  if (isMainThread) return; // the main thread's process.env is the process's own environment
  const set = environmentSetter();
  for (const [name, value] of unset) set(name, value);
}

function environmentSetter(): (name: string, value: string) => void {
  if (process.platform === "win32") {
    const putenv = koffi.load("ucrtbase.dll").func("int _putenv_s(const char *name, const char *value)");
    return (name, value) => void putenv(name, value);
  }
  const setenv = koffi.load(null).func("int setenv(const char *name, const char *value, int overwrite)");
  return (name, value) => void setenv(name, value, 0);
}
