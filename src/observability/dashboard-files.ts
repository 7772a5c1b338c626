/** The dashboard's static files, read once at start: requests only ever choose among these. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { TroupeError } from "../shared/errors.js";
import { packageRoot } from "../shared/paths.js";

export interface DashboardFile {
  /** URL path. */
  readonly path: string;
  readonly contentType: string;
  readonly body: Buffer;
}

const FILES = [
  { path: "/", name: "index.html", contentType: "text/html; charset=utf-8" },
  { path: "/app.js", name: "app.js", contentType: "text/javascript; charset=utf-8" },
  { path: "/charts.js", name: "charts.js", contentType: "text/javascript; charset=utf-8" },
  { path: "/style.css", name: "style.css", contentType: "text/css; charset=utf-8" },
] as const;

export function readDashboardFiles(): DashboardFile[] {
  const folder = join(packageRoot, "src", "observability", "dashboard");
  return FILES.map(({ path, name, contentType }) => {
    try {
      return { path, contentType, body: readFileSync(join(folder, name)) };
    } catch (error) {
      throw new TroupeError(
        "INTERNAL",
        `dashboard file ${join(folder, name)} is missing; reinstall the package`,
        {
          cause: error,
        },
      );
    }
  });
}
