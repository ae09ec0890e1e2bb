/** Which host this page is in. */

import type { Host } from "../host.ts";
import { fileHost } from "./file.ts";
import { serverHost } from "./server.ts";

export function hostOfThisPage(): Host {
  return document.documentElement.dataset.host === "server" ? serverHost() : fileHost();
}
