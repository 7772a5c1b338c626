/** Who came and went, also in the coordinator's own log. */
import type { Logger } from "../observability/logger.js";
import type { EventBus } from "../observability/progress.js";

export function logWorkers(bus: EventBus, logger: Logger): void {
  bus.subscribe((event) => {
    switch (event.type) {
      case "worker-joined":
        return logger.info({ worker_id: event.workerId, role: event.role, pid: event.pid }, "worker joined");
      case "worker-restarted":
        return logger.info(
          { worker_id: event.workerId, role: event.role, pid: event.pid, restarts: event.restarts },
          "worker came back",
        );
      case "worker-lost":
        return logger.warn(
          { worker_id: event.workerId, role: event.role, reason: event.reason },
          "worker lost, its work goes to others",
        );
      default:
        return;
    }
  });
}
