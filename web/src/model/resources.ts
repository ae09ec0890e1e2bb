/** Files that a document carries. */

import type { Resource } from "../contract.ts";
import { bytesOfBase64 } from "./arrays.ts";

/** A Blob URL for a carried file, or undefined when the document has none by that name. */
export function resourceUrl(doc: { resources: Record<string, Resource> }, name: string): string | undefined {
  const resource = Object.hasOwn(doc.resources, name) ? doc.resources[name] : undefined;
  if (!resource) return undefined;
  return URL.createObjectURL(new Blob([bytesOfBase64(resource.data)], { type: resource.media_type }));
}
