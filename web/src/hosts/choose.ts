/** Which host this page is in. */

import type { Host } from "../host.ts";
import { fileHost } from "./file.ts";
import { isFramed, notebookHost } from "./notebook.ts";
import { serverHost } from "./server.ts";

export function hostOfThisPage(): Host {
  if (document.documentElement.dataset.host === "server") return serverHost();
  return isFramed() ? notebookHost() : fileHost();
}
