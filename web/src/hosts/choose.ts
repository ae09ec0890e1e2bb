/** Which host this page is in. */

import type { Host } from "../host.ts";
import { fileHost } from "./file.ts";

export function hostOfThisPage(): Host {
  return fileHost();
}
