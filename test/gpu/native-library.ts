import { tensorflowLibraryPath } from "../../src/engine/choice.js";

/** Why the suites of this folder cannot run here, or null. It stands in the titles of what is skipped. */
export const missing: string | null =
  tensorflowLibraryPath() === null ? "libtensorflow is not installed: npm run setup:gpu" : null;
