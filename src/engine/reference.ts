import * as tf from "@tensorflow/tfjs";
import { EagerEngine } from "./eager/eager-engine.js";
import type { Engine } from "./engine.js";

/** The slow engine that others are checked against: tfjs' plain-JavaScript cpu backend. */
export function createReferenceEngine(): Engine {
  tf.enableProdMode(); // silences tfjs' start-up banner
  return new EagerEngine({
    name: "reference",
    backend: "cpu",
    arenas: "host",
    description: `reference: tfjs ${tf.version["tfjs-core"]} cpu backend, 1 thread`,
  });
}
