/** Files that a document carries. */

import type { Resource } from "../contract.ts";
import { bytesOfBase64 } from "./arrays.ts";

/** Of every file that was asked for: a URL keeps its bytes for as long as the page lives, so that each is made once. */
const urls = new WeakMap<Resource, string>();

/** A Blob URL for a carried file, or undefined when the document has none by that name. It is not to be revoked. */
export function resourceUrl(doc: { resources: Record<string, Resource> }, name: string): string | undefined {
  const resource = Object.hasOwn(doc.resources, name) ? doc.resources[name] : undefined;
  if (!resource) return undefined;
  const known = urls.get(resource);
  if (known !== undefined) return known;
  const url = URL.createObjectURL(new Blob([bytesOfBase64(resource.data)], { type: resource.media_type }));
  urls.set(resource, url);
  return url;
}
