/** Which host this page is in. */

import type { Host } from "../host.ts";
import { fileHost } from "./file.ts";
import { isFramed, notebookHost } from "./notebook.ts";

export function hostOfThisPage(): Host {
  return isFramed() ? notebookHost() : fileHost();
}
