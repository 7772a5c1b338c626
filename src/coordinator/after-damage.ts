/** Ends a message about a damaged journal: what can be done. */
export const AFTER_DAMAGE =
  "put the run back from a copy, or start another run from the newest model that is whole (model.path: a folder under models/ or checkpoints/; its optimizer state and the run's progress are not taken over)";
