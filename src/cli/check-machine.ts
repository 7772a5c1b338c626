/** What commands that start a run ask of this machine before they start anything. */
import type { Config } from "../config/schema.js";
import type { RunOptions } from "./options.js";

/**
 * Says on stderr what is worth knowing, such as little free memory.
 * @returns the GPUs of `--gpus`
 * @throws {TroupeError} CONFIG when a library is missing, memory does not suffice, or `--gpus` cannot be followed
 */
export async function checkMachine(config: Config, options: Pick<RunOptions, "gpus">): Promise<number[]> {
  const [
    { checkMemoryFits },
    { engineOf, requireEngineLibrary },
    { gpuNote, parseGpuList, requireGpuEngine },
  ] = await Promise.all([
    import("./memory-check.js"),
    import("../engine/choice.js"),
    import("../launcher/gpus.js"),
  ]);
  const { engine, cluster } = config;
  requireEngineLibrary(engine);
  const gpus = options.gpus === undefined ? [] : parseGpuList(options.gpus);
  if (gpus.length > 0) requireGpuEngine(engineOf(engine), engine.provider);
  const workers = { rollout: cluster.rollouts, learner: cluster.learners };
  for (const note of [await checkMemoryFits(config), gpuNote(workers, gpus)])
    if (note !== null) console.error(`note: ${note}`);
  return gpus;
}
